"""The only loops: the supernet, its training, its evaluation."""
