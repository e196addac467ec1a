"""The networks: PyTorch modules that hold weights and call `sagan_cli.ops`."""
