"""Batches of chunks: drawn triplets, and P subgenres x K tracks x C chunks.

Every batch is a pure function of seed and epoch. Two chunks of one recording are never anchor and
positive, nor anchor and negative.
"""

from subgenre.training.batches.epochs import epoch_batches, learnt_chunks
from subgenre.training.batches.table import ChunkTable

__all__ = ["ChunkTable", "epoch_batches", "learnt_chunks"]
