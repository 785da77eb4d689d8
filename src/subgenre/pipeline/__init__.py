"""The stages with files in and out: the only room that knows the work folder's layout."""
