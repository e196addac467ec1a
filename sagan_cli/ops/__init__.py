"""Functions on tensors, one topic per file; independent of modules, files and settings."""
