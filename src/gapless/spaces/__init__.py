"""One file is one space."""
