"""Files become labelled tracks: folders, CSV, playlists and rekordbox collections, read and written."""
