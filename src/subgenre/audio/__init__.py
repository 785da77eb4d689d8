"""Read audio files: identity, tags and samples, and features and measures of a window.

One file also writes MP3.
"""
