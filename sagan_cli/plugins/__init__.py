"""The registry of built-in and installed extensions."""
