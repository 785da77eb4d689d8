"""One audio file: identity, tags, samples, and the features and measures of a window."""
