"""The original command: figures, map and report of a trained model (subgenre evaluate)."""

import sys

from subgenre.cli import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
