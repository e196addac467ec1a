"""sagan: train, sample, measure, explain and ship Self-Attention GANs. Holds the version and nothing else."""

__version__ = "0.1.0"
