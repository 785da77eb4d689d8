"""Files become labelled tracks: folders, CSV, playlists, rekordbox; read and written."""
