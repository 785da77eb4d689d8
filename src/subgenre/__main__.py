"""`python -m subgenre`, as torchrun starts it: `torchrun --nproc-per-node 2 -m subgenre train`."""

from subgenre.cli import run

if __name__ == "__main__":
    run()
