"""One file is one experiment over the engine."""
