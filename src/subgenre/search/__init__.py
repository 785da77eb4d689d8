"""Stored vectors: nearest neighbours, playlists, journeys and placements. No torch."""
