"""Gapless finds a neural architecture inside one weight-sharing supernet, and says how far the answer can be trusted."""
