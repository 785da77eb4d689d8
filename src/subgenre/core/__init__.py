"""What every room stands on: checked values, atomic files, workers, progress, hardware."""
