"""Scoring without torch: `from rrtn.runtime import Scorer`."""

from .bundle import load_bundle
from .errors import RrtnError
from .frontend import log_mel
from .scorer import Scorer
from .spec import FrontendSpec

__all__ = ["FrontendSpec", "RrtnError", "Scorer", "load_bundle", "log_mel"]
