"""One file is one judge of architectures: what gives them a score."""
