"""What a backend is: the record that describes it, and what it can do once it is loaded.

The help texts of the commands read the records, so this file imports neither NumPy nor a runtime.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..errors import install_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..arrays import Float32
    from ..bundle import Bundle, Variant
    from .model_batch import BatchMemory, ClipBatch, Outputs, Spent


class Backend(Protocol):
    """A variant that is loaded and ready to run."""

    @property
    def variant(self) -> "Variant":
        """The variant that it runs; `variant.input` says what a batch is made of."""

    @property
    def device(self) -> str:
        """The name of its record, as in `--backend`."""

    def run(self, batch: "ClipBatch", spent: "Spent | None" = None) -> "Outputs":
        """log_mel [B, 1, T, M], or waveform [B, N] in float32 or int16 -> Outputs.

        Adds the time of each step to `spent`. Raises OutOfMemoryError for a batch that is too
        large, and ModelError for a batch that the model does not accept.
        """

    def scores(self, batch: "ClipBatch") -> "Float32":
        """A batch as `run` takes it -> scores [B, K]."""

    @property
    def embedding_size(self) -> int | None:
        """D; None if the model gives no embeddings."""

    @property
    def skips_silence(self) -> bool:
        """True if it does not compute the silence behind recordings.

        Clips of about the same length then take less time together, and a score depends neither on the others
        of a batch nor on their number.
        """

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> "BatchMemory":
        """Room for a batch [B, ...] where the model reads it."""

    def pin(self, array: "npt.NDArray[Any]") -> Callable[[], None]:
        """Makes `BatchMemory.put` of parts of this array faster; -> a function that undoes it."""


class Diagnosis(NamedTuple):
    """What `rrtn doctor` says about a backend."""

    state: Literal["ok", "missing", "note"]
    detail: str
    fix: str = ""


def _nothing(variant: "Variant") -> str:
    return ""


def _no_drawback(variant: "Variant", single: bool) -> str:
    return ""


def _any(variant: "Variant") -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class BackendKind:
    """The record of a backend: all that the rest of rrtn knows about it before a model is loaded."""

    name: str
    """What `--backend` calls it."""

    file_kind: Literal["onnx", "engine", "mnn"]
    """The kind of file that it loads."""

    preferred: tuple[str, ...]
    """The variants that it may choose by itself, the best first. Others must be named."""

    may_choose: Callable[["Variant"], bool] = _any
    """False for a preferred variant that must be named all the same."""

    unproven: Callable[["Variant"], str] = _nothing
    """Why `auto` must not take a variant by itself, or "" if it may.

    Naming the variant or the backend takes it all the same, and `rrtn tune` compares it with fp32 first."""

    chosen_by_auto: bool = True
    """False if `auto` takes it only where `rrtn tune` has measured that it is the fastest."""

    precision: str = ""
    """The precision in which it computes what is float32 in the file, where that is another one."""

    needs_gpu: bool
    """True if it needs a GPU. Ray then gives it one."""

    parallel: bool
    """True if `rrtn score` runs a batch on each core. Otherwise two are in flight: while one is computed, the
    next one is queued behind it."""

    survives_fork: bool
    """True if a process that is forked from the one that has loaded a model may use its copy."""

    copies: int = 0
    """The bytes of memory that each batch that runs takes for weights of its own, in sizes of the file."""

    batch_size: int
    """The number of clips in a batch of `rrtn score`."""

    bench_batches: tuple[int, ...]
    """The batch sizes that `rrtn bench` measures."""

    wanted: str
    """What the backend needs. It completes the words "expected ..." in an error."""

    extra: str = ""
    """The extra of rrtn that brings its runtime; "" for what every installation has."""

    export_flags: str | None = None
    """With which flags `rrtn export` makes its file; None if the lack of a file is not why it cannot run."""

    fix: str = ""
    """What else to do if the backend cannot run."""

    load: Callable[["Bundle", "Variant", int | None], Backend]
    """Loads a variant: bundle, variant, number of threads (None: one on each core).

    Raises UnavailableError if this machine cannot run it, and ModelError for a broken file.
    """

    diagnose: Callable[[], Diagnosis]
    """Says whether the backend can run here. It may load libraries, which takes about a second."""

    obstacle: Callable[["Variant"], str] = _nothing
    """Why this machine cannot run a variant, or "" if it should. Loads nothing."""

    drawback: Callable[["Variant", bool], str] = _no_drawback
    """Why another variant is probably faster here, for batches or (True) for single clips; or ""."""

    remark: Callable[["Variant"], str] = _nothing
    """What to say about a variant that it has chosen by itself; or ""."""

    def takes(self, variant: "Variant") -> bool:
        """True if the backend loads this kind of file."""
        return variant.kind == self.file_kind

    def what_to_do(self, bundle: "Bundle") -> str:
        """What to do if the backend cannot run: install its extra, export again, then `fix`."""
        export = "" if self.export_flags is None else bundle.export_again(self.export_flags)
        return "; ".join(filter(None, [self.extra and install_command(self.extra), export, self.fix]))

    def lanes(self, cores: int) -> int:
        """The number of batches that run at the same time on `cores` cores."""
        return cores if self.parallel else 2
