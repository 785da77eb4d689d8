"""`python -m subgenre`, as torchrun starts it: `torchrun --nproc-per-node 2 -m subgenre train`."""

import sys

from subgenre.cli import main

if __name__ == "__main__":
    sys.exit(main())
