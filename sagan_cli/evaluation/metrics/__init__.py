"""Metrics: features in, numbers and intervals out."""
