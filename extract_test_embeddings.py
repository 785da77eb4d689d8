"""The original command: vectors of the held-out tracks as one table (subgenre embed)."""

import sys

from subgenre.cli import run

if __name__ == "__main__":
    run(["embed", *sys.argv[1:]])
