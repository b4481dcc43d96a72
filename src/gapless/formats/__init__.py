"""How a network leaves Gapless: one file is one format. ``write(model, folder)`` writes files that need no Gapless."""
