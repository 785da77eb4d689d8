"""What leaves the package: a trained encoder, or the vectors of tracks, for other tools.

One module a format; `commands/export.py` lists the formats.
"""
