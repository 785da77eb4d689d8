"""Find the audio files of a library and describe them as tracks with labels and tags.

Libraries are folders, CSV files, playlists or rekordbox collections; playlists are also written,
and subgenres into the tags of files.
"""
