"""The backend `mnn`: MNN on the processor. `auto` takes it where `rrtn tune` has measured it."""

import importlib.util
from typing import TYPE_CHECKING

from ..errors import install_command
from ..system.packages import installed_version
from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant


def _load(bundle: "Bundle", variant: "Variant", threads: int | None) -> Backend:
    from .mnn_backend import mnn_backend_from_bundle

    return mnn_backend_from_bundle(bundle, variant, threads=threads)


def mnn_missing() -> str:
    """Why MNN cannot be loaded here, or "" if it should. Loads nothing."""
    return "" if importlib.util.find_spec("MNN") else "MNN is not installed"


def _obstacle(variant: "Variant") -> str:
    return mnn_missing()


def _diagnose() -> Diagnosis:
    if missing := mnn_missing():
        return Diagnosis("missing", missing, install_command(MNN_KIND.extra))
    version = installed_version("MNN")
    return Diagnosis("note", f"MNN {version}, for what rrtn export --mnn makes; for: rrtn tune")


MNN_KIND = BackendKind(
    name="mnn",
    file_kind="mnn",
    preferred=("mnn",),
    chosen_by_auto=False,
    needs_gpu=False,
    parallel=True,
    survives_fork=False,  # its threads, and the locks of those that were in it, are not in the child
    copies=4,  # CNN14 of 312 MB takes 1.1 GB
    batch_size=8,  # larger ones leave the caches: CNN14 takes 65 ms a clip in batches of 8, and more in 16
    bench_batches=(1, 4, 8),
    wanted="MNN, and a file in its format",
    extra="mnn",
    export_flags="--mnn",
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
)
