"""The networks: modules that hold weights and call `sagan_cli.ops`; every subcommand shares this one package."""
