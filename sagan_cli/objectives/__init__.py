"""Terms of the training objective: losses, penalties, augmentations and constraints."""
