"""The encoder: backbone, pooling, head, unit norm; and the vectors it makes of chunks and files."""
