"""The feature folder: a library cut into chunks, the tables beside them, and the splits over its tracks."""
