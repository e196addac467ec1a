"""Everything between `--data` and the batch of an update: sources, decoding, packing into a memory-mapped cache."""
