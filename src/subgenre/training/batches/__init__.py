"""Batches of chunks: drawn triplets, and P subgenres x K tracks x C chunks.

Every batch is a pure function of seed and epoch. Two chunks of one recording are never anchor and
positive, nor anchor and negative.
"""

from subgenre.training.batches.epochs import epoch_batches, learnt_chunks, takes_trash
from subgenre.training.batches.pk import pk_batches
from subgenre.training.batches.table import ChunkTable, chunk_table
from subgenre.training.batches.triplets import TripletAudioDataset, draw_triplets, triplet_batches

__all__ = [
    "ChunkTable",
    "TripletAudioDataset",
    "chunk_table",
    "draw_triplets",
    "epoch_batches",
    "learnt_chunks",
    "pk_batches",
    "takes_trash",
    "triplet_batches",
]
