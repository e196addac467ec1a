"""Loggers: what receives the events of a training run."""
