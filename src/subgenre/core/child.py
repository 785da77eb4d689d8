"""The process that `parallel.alone` starts: `python -m subgenre.core.child`; it loads no torch.

It receives a pickled function and its argument, and sends pickled results, None at their end, or
why there are no more.
"""

from __future__ import annotations

import os
import pickle
import sys

from subgenre.core import parallel


def main() -> None:
    """Call the function and send what it yields."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what a library prints is no result
        fn, item = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that starts this one
        parallel.limit_memory()
        try:
            for result in fn(item):
                pickle.dump(result, out)
                out.flush()
            end = None
        except Exception as problem:  # noqa: BLE001 - whatever a library raises
            end = parallel.sendable(problem)
        pickle.dump(end, out)


if __name__ == "__main__":
    main()
