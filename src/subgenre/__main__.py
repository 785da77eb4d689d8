"""The program, and `python -m subgenre`: `torchrun --nproc-per-node 2 -m subgenre train`."""

import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is being imported prints no traceback."""
    try:
        from subgenre.cli import run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    start()
