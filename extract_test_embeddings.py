"""The original command: vectors of the held-out tracks as one table (subgenre embed)."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main(["embed", *sys.argv[1:]]))
