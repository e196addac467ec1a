"""Scores of a generator or of images: datasets in, one record out."""
