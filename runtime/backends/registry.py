"""The list of all backends. To add a backend, write its record in a file and add one line here."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError
from .base import BackendKind
from .cpu import CPU
from .cuda import CUDA
from .mnn_kind import MNN_KIND
from .openvino_kind import OPENVINO, OPENVINO_BF16
from .trt import TRT

if TYPE_CHECKING:
    from ..bundle import Variant

AUTO: Final = "auto"  # the name for the fastest backend that runs here

BACKENDS: Final[list[BackendKind]] = [  # the fastest first; last those that auto does not choose by itself
    TRT,
    CUDA,
    CPU,
    OPENVINO,
    OPENVINO_BF16,
    MNN_KIND,
]


def backend_kind(name: str) -> BackendKind:
    """The record with this name. Raises ConfigError for an unknown name."""
    for kind in BACKENDS:
        if kind.name == name:
            return kind
    raise ConfigError("--backend", repr(name), wanted=backend_names())


def backend_kinds(name: str) -> list[BackendKind]:
    """The records that `--backend NAME` may choose from, the fastest first. Raises ConfigError."""
    return [kind for kind in BACKENDS if kind.chosen_by_auto] if name == AUTO else [backend_kind(name)]


def kinds_for_variant(variant: "Variant") -> list[BackendKind]:
    """The backends that load this kind of file, the fastest first. Not all may run here."""
    return [kind for kind in BACKENDS if kind.takes(variant)]


def backend_names() -> str:
    """All that `--backend` accepts, for help texts and errors: "auto, trt, cuda, ... or mnn"."""
    return _listed([AUTO, *(kind.name for kind in BACKENDS)], "or")


def for_each_backend(value: Callable[[BackendKind], str]) -> str:
    """A value of every backend, for help texts: "256 for trt and cuda, ..."."""
    names: dict[str, list[str]] = {}
    for kind in BACKENDS:
        names.setdefault(value(kind), []).append(kind.name)
    return ", ".join(f"{value} for {_listed(those, 'and')}" for value, those in names.items())


def _listed(names: Sequence[str], last: str) -> str:
    """ "a, b and c", with `last` as the last word between."""
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end
