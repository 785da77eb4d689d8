"""What every room stands on: checked values, atomic files, workers, shards, progress, hardware."""
