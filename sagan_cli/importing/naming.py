"""The names of the foreign formats, for a command line that has not loaded PyTorch yet."""

AUTO = "auto"
FORMATS = {
    "biggan-pytorch": "ajbrock/BigGAN-PyTorch, its SAGAN",
    "studiogan": "POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and SNGAN",
    "voletiv": "voletiv/self-attention-GAN-pytorch",
    "heykeetae": "heykeetae/Self-Attention-GAN",
}
"""Name -> the project whose files it means."""
