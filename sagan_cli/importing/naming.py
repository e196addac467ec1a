"""The names of the foreign formats, for a command line that has not loaded PyTorch yet."""

AUTO = "auto"
FORMATS = {
    "biggan-pytorch": "ajbrock/BigGAN-PyTorch, its SAGAN",
    "studiogan": "POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and SNGAN",
    "voletiv": "voletiv/self-attention-GAN-pytorch",
    "heykeetae": "heykeetae/Self-Attention-GAN",
}
"""Name -> the project whose files it means."""
IMPORTED = "imported"
"""The status of a run that was not trained here: it has no discriminator and no optimiser."""
UNKNOWN = "unknown pictures"
"""The data set of such a run; no path and no name is ever called that."""
