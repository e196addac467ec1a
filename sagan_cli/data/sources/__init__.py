"""Datasets that `--data` can name."""
