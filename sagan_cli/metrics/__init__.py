"""Scores as pure functions: extractors turn pictures into features, metrics turn features into numbers."""
