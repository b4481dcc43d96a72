"""One file is one weight-sharing paper."""
