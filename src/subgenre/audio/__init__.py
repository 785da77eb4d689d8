"""One audio file: its identity, its tags, its samples, and the features and measures of a window."""
