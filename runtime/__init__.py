"""Scoring without torch: `from rrtn.runtime import Scorer`.

Names are loaded when they are first used: the command line needs the errors at once, and ONNX
Runtime only to score.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import load_bundle
    from .errors import RrtnError
    from .frontend import log_mel
    from .scoring.scorer import Scorer
    from .spec import FrontendSpec

__all__ = ["FrontendSpec", "RrtnError", "Scorer", "load_bundle", "log_mel"]

_HOMES = {
    "FrontendSpec": "spec",
    "RrtnError": "errors",
    "Scorer": "scoring.scorer",
    "load_bundle": "bundle",
    "log_mel": "frontend",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
