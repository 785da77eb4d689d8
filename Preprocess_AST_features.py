"""The original command: audio files -> chunks of log-mel features (subgenre preprocess)."""

import sys

from subgenre.cli import run

if __name__ == "__main__":
    run(["preprocess", *sys.argv[1:]])
