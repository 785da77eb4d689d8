"""The original command: features -> a model by the original recipe (subgenre train)."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "thesis", *sys.argv[1:]]))
