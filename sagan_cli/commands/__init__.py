"""One file per subcommand: flags in, a call into the engine, a result out. Heavy imports live inside the functions."""
