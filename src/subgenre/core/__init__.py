"""What every room stands on: checked values, atomic files, worker pools, progress, text, hardware."""
