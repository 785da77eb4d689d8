"""From chunks to a trained encoder: batches, augmentation, the loop, checkpoints, recipes."""
