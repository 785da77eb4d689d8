"""The feature folder: chunks of a library, the tables beside them, splits over its tracks."""
