"""Other tools' configurations, read as ours. Knows their files, and neither a network nor a running server."""
