"""Store the vectors of tracks and answer from them: similar tracks, lists, journeys, placements.

It works on vectors and tags alone, so it loads no torch and opens audio only to find moved files.
"""
