"""`python -m rrtn`, and so `torchrun -m rrtn train`."""

from .cli import main

main()
