"""Pictures, tables and summaries of a finished search."""
