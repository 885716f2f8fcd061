"""`rrtn` and `python -m rrtn`, and so `torchrun -m rrtn train`."""

from typing import NoReturn

from .commands.program import catch_signals


def main() -> NoReturn:
    """Catches signals, then loads the rest."""
    catch_signals()
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
