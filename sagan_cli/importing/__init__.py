"""Generators that other projects trained: read from their files, mapped onto networks of this package, kept as runs."""
