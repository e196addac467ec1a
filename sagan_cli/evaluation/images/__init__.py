"""Images to be scored as they are: folders, archives, .npz files and pipes."""
