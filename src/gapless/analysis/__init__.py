"""Pure arithmetic on results: statistics, rankings, warnings."""
