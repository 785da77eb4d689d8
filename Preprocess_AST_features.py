"""The original command: audio files -> chunks of log-mel features (subgenre preprocess)."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main(["preprocess", *sys.argv[1:]]))
