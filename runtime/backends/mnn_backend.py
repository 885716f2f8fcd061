"""Variants in MNN's own format, run by MNN on the processor.

B batch, T frames, M mels, K labels, D embedding.
"""

import importlib
import os
import time
import weakref
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

import numpy as np

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from ..system.cpus import usable_cpus
from ..system.descriptors import quiet_stdout
from ..system.host import NamedFile
from .lanes import Lanes
from .model_batch import ClipBatch, HostModel, Outputs, Spent, check_fit, widened

_NAME: Final = "mnn"  # of the backend
_OUT_OF_MEMORY: Final = 1  # MNN::ErrorCode


@dataclass
class _Session:
    """An interpreter with its only session: MNN runs one session of an interpreter at a time."""

    interpreter: Any
    session: Any
    shape: tuple[int, ...] = field(default=())  # of the batches that it is made for

    def resize(self, shape: tuple[int, ...]) -> bool:
        """Makes room for batches of this shape; False if MNN cannot."""
        if shape != self.shape:
            self.interpreter.resizeTensor(self.interpreter.getSessionInput(self.session), shape)
            if not self.interpreter.resizeSession(self.session):
                return False
            self.shape = shape
        return True


@dataclass(frozen=True)
class MnnBackend(HostModel):
    """A loaded variant. Each batch that runs has weights of its own: MNN shares none between interpreters."""

    variant: Variant
    clip: tuple[int, ...]  # shape of an input
    outputs: tuple[str, ...]
    embedding_size: int | None  # D; None if the model gives no embeddings
    sessions: Lanes[_Session]
    device: str = _NAME

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that MNN refuses.
        """
        if tuple(batch.shape[1:]) != self.clip:
            raise self._refused(batch, f"clips of {list(self.clip)}")
        with self.sessions.one() as one:
            begin = time.perf_counter()
            if not one.resize(tuple(batch.shape)):
                raise self._too_large(batch)
            x = np.ascontiguousarray(widened(batch))
            one.interpreter.getSessionInput(one.session).copyFrom(_tensor_of(x))
            there = time.perf_counter()
            code = one.interpreter.runSession(one.session)
            ran = time.perf_counter()
            if code:
                raise (
                    self._too_large(batch) if code == _OUT_OF_MEMORY else self._refused(batch, "code 0", code)
                )
            found = {name: _array_of(one, name) for name in self.outputs}
            if spent:
                spent.add(begin, there, ran, time.perf_counter())
            return Outputs(found["scores"], found.get("embedding"))

    def _refused(self, batch: ClipBatch, wanted: str, code: int | None = None) -> ModelError:
        came = f"a batch of {list(batch.shape)}" + ("" if code is None else f", MNN's code {code}")
        return ModelError(
            f"{self.variant.file} on {self.device}", came, wanted=wanted, fix="run: rrtn doctor"
        )

    def _too_large(self, batch: ClipBatch) -> OutOfMemoryError:
        subject, came = (
            f"{self.variant.file} on {self.device}",
            f"no memory for a batch of {list(batch.shape)}",
        )
        fix = "use a smaller --batch-size"
        return OutOfMemoryError(subject, came, wanted="enough memory for this batch", fix=fix)


def mnn_backend_from_bundle(bundle: Bundle, variant: Variant, *, threads: int | None = None) -> MnnBackend:
    """Loads a variant in MNN's format from the same bytes that were hashed; `threads` are those of a batch.

    Raises ModelError if MNN refuses the model, and UnavailableError if it cannot be loaded.
    """
    model = _FileInMemory(bundle.read(variant))
    engine = _imported()
    count = threads or usable_cpus()
    make = partial(_session, engine, model, count, variant.file)
    with quiet_stdout():  # MNN prints what it refuses
        first = make()
    clip = tuple(first.interpreter.getSessionInput(first.session).getShape()[1:])
    tensors = first.interpreter.getSessionOutputAll(first.session)
    sizes = {name: [-1, *tensor.getShape()[1:]] for name, tensor in tensors.items()}
    check_fit(bundle, variant, {variant.input: [-1, *clip]}, sizes)
    sessions = Lanes(make, max(1, usable_cpus() // count))
    embedding = sizes["embedding"][-1] if "embedding" in sizes else None
    known = tuple(name for name in sizes if name in Outputs._fields)
    return MnnBackend(variant, clip, known, embedding, sessions)


def _session(engine: Any, model: "_FileInMemory", threads: int, name: str) -> _Session:
    try:
        interpreter = engine.Interpreter(model.name)
        session = interpreter.createSession({"numThread": threads})
    except Exception as error:  # MNN raises no other class
        raise ModelError(
            name, str(error), wanted="a model that MNN loads", fix="export its run again with --mnn"
        ) from error
    made = _Session(interpreter, session)
    made.resize((1, *interpreter.getSessionInput(session).getShape()[1:]))
    return made


class _FileInMemory:
    """A file of this process alone, since MNN takes names of files only. It goes with this object."""

    def __init__(self, content: bytes) -> None:
        named = NamedFile()
        weakref.finalize(self, named.close)
        named.file.write(content)
        named.file.flush()
        self.name = os.fsdecode(named.path)


@cache
def _imported() -> Any:
    try:
        with quiet_stdout():  # it prints what the processor can do
            return importlib.import_module("MNN")
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"--backend {_NAME}", str(error), wanted="an MNN that can be loaded", fix="run: rrtn doctor"
        ) from error


def _tensor_of(array: Float32) -> Any:
    engine = _imported()
    return engine.Tensor(array.shape, engine.Halide_Type_Float, array, engine.Tensor_DimensionType_Caffe)


def _array_of(one: _Session, name: str) -> Float32:
    output = one.interpreter.getSessionOutput(one.session, name)
    host = _tensor_of(np.empty(output.getShape(), np.float32))
    output.copyToHostTensor(host)
    return np.array(host.getNumpyData(), np.float32)
