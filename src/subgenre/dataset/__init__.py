"""The feature folder: chunk files of a library and their tables.

Splits and track vectors work without torch.
"""
