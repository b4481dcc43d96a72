"""One file is one black-box search."""
