"""What the scoring process itself takes for a file, with decoders and a model that take no time.

    python benchmarks/parent_cost.py [--files 20000] [--repeats 5]

rows    Scorer.rows_of_files: files to decoders, clips to batches, batches to rows
table   score_to_table: the same, with the list of files before it, and parts and the CSV behind it

The decoders are processes that say at once that a clip lies in their memory; the model gives a half for
every label. What is counted is the time of all processors that the process took with all its threads, so
neither the decoders nor the waiting for them is in it. The clips are 16-bit waveforms, as on a GPU.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import free_decoder
import numpy as np
from measure import report
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.sources import Input
from rrtn.runtime.backends.choice import Choice
from rrtn.runtime.backends.model_batch import ModelBatch, Outputs, Spent
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.scoring import decoder_pool, scorer
from rrtn.runtime.scoring.folder import score_to_table
from rrtn.runtime.scoring.local_engine import LocalEngine

TARGET = 25.0  # us a file, design.md section 8
LABELS = tuple(f"label {i}" for i in range(10))
BATCH = 256


class FreeModel:
    """A backend that runs at once."""

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

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """Scores of 0.5."""
        return Outputs(np.full((len(batch), len(LABELS)), 0.5, np.float32), None)


def free_scorer() -> Scorer:
    """A scorer with the free model."""
    bundle = Bundle(
        path=Path("free"), labels=LABELS, spec=FrontendSpec(), variants=(FreeModel.variant,), provenance={}
    )
    with mock.patch.object(scorer, "choose_backend", lambda *_, **__: Choice(FreeModel(), {})):
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
        mock.patch.object(decoder_pool, "decoder_command", free_command),
        free_scorer() as free,
        tempfile.TemporaryDirectory() as folder,
    ):
        engine = LocalEngine(free)
        out = Path(folder) / "scores.csv"

        def table() -> int:
            with InputSpool(iter(inputs)) as spool:
                return score_to_table(engine, spool, out, overwrite=True).totals.scored

        functions = {"rows": lambda: sum(len(rows) for rows in free.rows_of_files(names)), "table": table}
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
