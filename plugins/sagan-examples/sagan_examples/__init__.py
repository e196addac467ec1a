"""Examples of every kind of extension for sagan."""
