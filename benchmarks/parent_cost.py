"""What the scoring process itself takes for a file, with decoders and a model that take no time.

    python benchmarks/parent_cost.py [--files 20000] [--repeats 5]

rows    Scorer.rows_of_files: files to decoders, clips to batches, batches to rows
table   score_to_table: the same, with the list of files before it, and parts and the CSV behind it

copies  as rows, where the processor copies the clips to the batches, as without a GPU

The decoders are processes that say at once that a clip lies in their memory; the model gives a half for
every label. What is counted is the time of all processors that the process took with all its threads, so
neither the decoders nor the waiting for them is in it. The clips are 16-bit waveforms, as on a GPU, which
copies them from the decoders' memory itself.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import free_decoder
import numpy as np
import numpy.typing as npt
from measure import report
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.arrays import Float32
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.sources import Input
from rrtn.runtime.backends.choice import BeforeLoad, Choice
from rrtn.runtime.backends.model_batch import ClipBatch, HostBatch, Outputs, Spent
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.scoring import decoder_handle, scorer
from rrtn.runtime.scoring.folder import score_to_table
from rrtn.runtime.scoring.local_engine import LocalEngine

TARGET = 25.0  # us a file, design.md section 8
LABELS = tuple(f"label {i}" for i in range(10))
BATCH = 256


class FreeBatch(HostBatch):
    """Room to which clips are copied without the processor, as CUDA copies pinned memory."""

    def put(self, first: int, clips: npt.NDArray[Any]) -> None:
        """Does nothing."""


class FreeModel:
    """A backend that runs at once."""

    copies = False  # whether the processor copies clips to the model's batches
    variant = Variant(
        name="waveform",
        file="model.onnx",
        kind="onnx",
        input="waveform",
        precision="fp16",
        sha256="0" * 64,
        size=0,
    )
    device = "cuda"
    embedding_size = None
    skips_silence = False

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """Scores of 0.5."""
        return Outputs(np.full((len(batch), len(LABELS)), 0.5, np.float32), None)

    def scores(self, batch: ClipBatch) -> Float32:
        """The same, the scores only."""
        return self.run(batch).scores

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> HostBatch:
        """Room to which clips are copied by the device, or by the processor."""
        return HostBatch(shape, dtype) if self.copies else FreeBatch(shape, dtype)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Does nothing."""
        return lambda: None


def free_scorer() -> Scorer:
    """A scorer with the free model."""
    bundle = Bundle(
        path=Path("free"), labels=LABELS, spec=FrontendSpec(), variants=(FreeModel.variant,), provenance={}
    )

    def choose(*_: object, before_load: BeforeLoad, **__: object) -> Choice:
        before_load(FreeModel.variant, BATCH)
        return Choice(FreeModel(), {})

    with mock.patch.object(scorer, "choose_backend", choose):
        return Scorer(bundle, batch_size=BATCH)


def free_command(pipe: int, memory: int) -> list[str]:
    """The command of a free decoder."""
    paths = [str(Path(__file__).parent), *sys.path]
    return [
        sys.executable,
        "-c",
        free_decoder.PROGRAM.format(paths=paths, pipe=pipe, memory=memory),
    ]


def microseconds(function: Callable[[], int], files: int) -> float:
    """Time of all processors that a call takes, for each file (us)."""
    begin = time.process_time()
    assert function() == files
    return 1e6 * (time.process_time() - begin) / files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    names = [f"/recordings/{i // 1000:04d}/{i:08d}.wav" for i in range(arguments.files)]
    inputs = [Input(os.fsencode(name), 80_000 + i, i, i, i) for i, name in enumerate(names)]
    with (
        mock.patch.object(decoder_handle, "decoder_command", free_command),
        free_scorer() as free,
        tempfile.TemporaryDirectory() as folder,
    ):
        engine = LocalEngine(free)

        def table() -> int:
            FreeModel.copies = False
            out = Path(tempfile.mkdtemp(dir=folder)) / "scores.csv"  # nothing of an earlier round to remove
            with InputSpool(iter(inputs)) as spool:
                return score_to_table(engine, spool, out).totals.scored

        def rows(*, copies: bool) -> int:
            FreeModel.copies = copies
            return sum(len(rows) for rows in free.rows_of_files(names))

        functions: dict[str, Callable[[], int]] = {
            "rows": partial(rows, copies=False),
            "copies": partial(rows, copies=True),
            "table": table,
        }
        costs: dict[str, list[float]] = {name: [] for name in functions}
        for round_ in range(arguments.repeats + 1):
            for name, function in functions.items():
                cost = microseconds(function, len(names))
                if round_:  # the first one starts the decoders
                    costs[name].append(cost)
    results = {
        name: {
            "us_a_file": round(float(np.median(values)), 2),
            "least": round(min(values), 2),
            "files_per_s": round(1e6 / float(np.median(values))),
            "n": len(values),
        }
        for name, values in costs.items()
    }
    report("parent cost", results, ratios={}, files=len(names), target_us=TARGET)


if __name__ == "__main__":
    main()
