"""The original command: features -> a model by the original recipe (subgenre train)."""

import sys

from subgenre.cli import run

RECIPE = ("--recipe", "thesis")

if __name__ == "__main__":
    if "--help" in sys.argv or "-h" in sys.argv:
        sys.stdout.write(f"This is `subgenre train {' '.join(RECIPE)}`, whose options are:\n\n")
    run(["train", *RECIPE, *sys.argv[1:]])
