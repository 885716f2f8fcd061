"""`rrtn` and `python -m rrtn`, and so `torchrun -m rrtn train`."""

import gc
import os
from typing import NoReturn

from .commands.program import catch_signals


def main() -> NoReturn:
    """Catches signals, then loads the rest."""
    catch_signals()
    # NumPy's OpenBLAS starts a thread for each further core, which waits for work in a loop before it sleeps:
    # by default for 2^26 cycles, 50 ms of that core with every command.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    gc.disable()  # what is imported stays
    from .cli import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
