"""Attention maps: computed from a network, shown as a figure, a page or numbers."""
