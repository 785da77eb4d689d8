"""The original command: features -> a trained model by the original recipe (subgenre train --recipe thesis)."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "thesis", *sys.argv[1:]]))
