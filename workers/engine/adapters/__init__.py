"""One small adapter per family of models: what the engine must know beyond the shared attention function."""
