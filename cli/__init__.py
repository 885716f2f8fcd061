"""The command line: parse, call one function of a layer, print, set the exit code.

Heavy imports are inside the commands, so that --help is instant and scoring never loads torch.
"""

from .entry import app, main

__all__ = ["app", "main"]
