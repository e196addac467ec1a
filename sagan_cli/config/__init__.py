"""What a run is told: the settings, the presets, and the order in which their sources win. No torch."""
