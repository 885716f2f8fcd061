"""Scoring without PyTorch: `from rrtn.runtime import Scorer`.

errors       every error that rrtn raises on purpose
text         names and labels of others, harmless for a terminal, a table or a page
spec         the constants of the audio frontend, which travel with a model
arrays       names for the arrays that pass between modules
frontend     log-Mel in NumPy
model_input  what a model's input is made from, for programs that hold signals
challenge    the ten emotions of Hume-VB, in the order of submissions
documents    JSON from files, checked once, at the door
progress     a bar on a terminal, lines elsewhere
doctor       what this machine can do
tune         what is the fastest way to run a bundle here
probe_sounds  sounds that two ways of running a model are compared on
bench        how fast a bundle is here
bench_report  what `rrtn bench` says of it: document, lines and chart

system/      what the operating system gives: files, locks, memory, cores
bundle/      a model's files, its labels and its frontend
audio/       sound files in
backends/    what runs a model
tables/      rows of scores, and the files that hold them
scoring/     from a folder of recordings to a table
serving/     scores over HTTP
live/        rolling windows of sound that goes on

A public name is loaded when it is first used: the command line needs the errors at once, and ONNX Runtime
only to score.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import load_bundle
    from .errors import RrtnError
    from .frontend import log_mel
    from .scoring.decoder_start import freeze_support
    from .scoring.scorer import Scorer
    from .spec import FrontendSpec

__all__ = ["FrontendSpec", "RrtnError", "Scorer", "freeze_support", "load_bundle", "log_mel"]

_HOMES = {
    "FrontendSpec": "spec",
    "RrtnError": "errors",
    "Scorer": "scoring.scorer",
    "freeze_support": "scoring.decoder_start",
    "load_bundle": "bundle",
    "log_mel": "frontend",
}


# Since 1.29 ONNX Runtime sends usage figures to its makers, from a thread that does not survive a fork: a
# process that is forked after the import would hang at its end. Set to 0 before, it is left so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
