"""`python -m subgenre`, as torchrun starts it: `torchrun --nproc-per-node 2 -m subgenre train`."""

import os
import sys

from subgenre.cli import main

if __name__ == "__main__":
    code = main()
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        sys.exit(code)
    # A thread of torch's that wakes while the interpreter is taken down aborts the process, now and
    # then, though the model is written: torchrun would call the whole run failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
