"""Settings of a run, presets and systems, and the priority of their sources. No torch."""
