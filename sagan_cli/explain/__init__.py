"""Attention made visible: from maps, as plain arrays, to figures, pages and numbers. Knows no network."""
