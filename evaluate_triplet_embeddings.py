"""The original command: figures, map and report of a trained model (subgenre evaluate)."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
