"""The same model, with the same weights, on the same clips through the runtimes that one could take
instead; in one run.

    python benchmarks/peers.py [--encoders resnet18] [--repeats 5] [--without compile] [--every]

From files: rrtn's Scorer (with the variant that it takes by itself), audonnx with audinterface (by
default, and at its best), and a plain loop (read, resample, log-Mel, batches of 16) around PyTorch
eager, torch.compile, and OpenVINO. Model alone: these and ONNX Runtime, MNN and ncnn (which has no
batches), fed features that are ready in memory, in batches of 16 on all cores, and with --every also clip
by clip and on one thread; on processors that multiply bfloat16, OpenVINO in that, too. OpenVINO also runs
with its hint for throughput. Int8 is in int8.py.

All give the same scores (checked before a time is printed; bfloat16 may not). They are no dependencies of
this file: `make .peers` brings them; lines of what is missing are left out, which is said.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import runtimes
import torch
from files_to_scores import (
    BATCH,
    ROOT,
    Files,
    Runs,
    Scores,
    audonnx_functions,
    check_same,
    count_of,
    cpu_variant_file,
    from_features,
    from_files,
    log_mels_of_files,
    model_file,
    network_of,
    ort_run,
    real_files,
    rrtn_scores,
    torch_run,
)
from measure import Ratio, interleaved, ratio, report, summary
from rrtn.runtime import Scorer
from rrtn.runtime.arrays import Float32
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS


class OpenvinoThroughput:
    """Several batches at once, as many as it thinks best."""

    def __init__(self, model: Path) -> None:
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": usable_cpus(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._queue = runtimes.openvino.AsyncInferQueue(
            runtimes.openvino.Core().compile_model(runtimes.openvino_model(model, BATCH), "CPU", config)
        )
        self._found: dict[int, Float32] = {}
        self._queue.set_callback(self._done)

    def _done(self, request: Any, number: int) -> None:
        self._found[number] = np.array(request.get_output_tensor(0).data)

    def scores(self, batches: Any) -> Float32:
        """Batches [B, 1, T, M] -> [n, K]."""
        self._found.clear()
        for number, batch in enumerate(batches):
            self._queue.start_async({0: batch}, number)
        self._queue.wait_all()
        return np.concatenate([self._found[number] for number in sorted(self._found)])


def functions_of(
    encoder: EncoderName, files: Files, model: Path, without: list[str], *, every: bool
) -> dict[str, Scores]:
    """Everything that is here, by name."""
    scorer = Scorer(cpu_variant_file(model), "cpu")  # beside the model, where `alone` finds it
    runs: dict[str, Runs] = {"PyTorch eager": torch_run(network_of(encoder))}
    if "compile" not in without:
        runs["torch.compile"] = torch_run(torch.compile(network_of(encoder), dynamic=False))
    if runtimes.openvino:
        runs["OpenVINO"] = runtimes.openvino_run(model, batch=BATCH, threads=usable_cpus())
    functions: dict[str, Scores] = {
        "rrtn": lambda: rrtn_scores(scorer, files.paths),
        **{name: from_files(run, files.paths) for name, run in runs.items()},
        **audonnx_functions(model, files.paths),
        **{f"model alone: {name}": from_features(run, files.features) for name, run in runs.items()},
    }
    ways = itertools.product((BATCH, 1), (usable_cpus(), 1)) if every else [(BATCH, usable_cpus())]
    for batch, threads in ways:
        functions |= alone(model, files.features, batch=batch, threads=threads)
    return functions | (openvino_functions(files, model) if runtimes.openvino else {})


def alone(model: Path, features: Float32, *, batch: int, threads: int) -> dict[str, Scores]:
    """The model alone by each runtime that is here, and by ours."""
    at = "" if (batch, threads) == (BATCH, usable_cpus()) else f", batch {batch}, {threads} threads"
    runs = {
        "ONNX Runtime": ort_run(model, threads=threads),
        **runtimes.fp32_runs(model, batch=batch, threads=threads),
    }
    if batch == BATCH:
        runs["variant cpu"] = ort_run(model.with_suffix(".cpu.onnx"), threads=threads)
    ready = {name: from_features(run, features, batch=batch) for name, run in runs.items()}
    return {f"model alone: {name}{at}": scores for name, scores in ready.items()}


def openvino_functions(files: Files, model: Path) -> dict[str, Scores]:
    throughput = OpenvinoThroughput(model)
    batches = np.split(files.features, len(files.features) // BATCH)
    return {
        "OpenVINO throughput": lambda: throughput.scores(log_mels_of_files(files.paths)),
        "model alone: OpenVINO throughput": lambda: throughput.scores(batches),
    }


def compared(
    encoder: EncoderName, files: Files, folder: Path, arguments: argparse.Namespace
) -> tuple[Any, dict[str, Ratio]]:
    """-> a summary of each, and how many times faster rrtn is (ONNX Runtime for the model alone)."""
    folder.mkdir()
    functions = functions_of(
        encoder, files, model_file(encoder, folder), arguments.without, every=arguments.every
    )
    differences = check_same(
        {name: function() for name, function in functions.items()}, reference="rrtn"
    )  # a warm-up
    seconds = interleaved(functions, repeats=arguments.repeats, warm_up=0, pause=0.2)
    results = {
        f"{encoder} {name}": summary(values, clips=len(files.paths))
        | {"max_difference": round(differences[name], 7)}
        for name, values in seconds.items()
    }
    ratios: dict[str, Ratio] = {}
    for name, values in seconds.items():
        at = name.partition(", batch")
        ours = f"model alone: ONNX Runtime{at[1]}{at[2]}" if name.startswith("model alone") else "rrtn"
        if name != ours:
            ratios[f"{encoder}: {ours} over {name.removeprefix('model alone: ')}"] = ratio(
                values, seconds[ours]
            )
    return results, ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="*", default=["resnet18"], choices=ENCODERS)
    parser.add_argument("--audio", type=Path, default=ROOT / "tests/fixtures/bursts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--share", type=float, default=0.25, help="of the usual number of files: 512, 128 and 64"
    )
    parser.add_argument(
        "--without", nargs="*", default=[], choices=["compile"], help="its compilation takes a minute"
    )
    parser.add_argument(
        "--every", action="store_true", help="the model alone also clip by clip, and on one thread"
    )
    arguments = parser.parse_args()
    if missing := runtimes.missing():
        print(f"{', '.join(missing)}: not there, and left out (make .peers)", file=sys.stderr)
    results: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        for encoder in arguments.encoders:
            files = real_files(
                arguments.audio, count_of(encoder, arguments.share), Path(name) / f"{encoder} audio"
            )
            of_encoder, of_pairs = compared(encoder, files, Path(name) / encoder, arguments)
            results |= of_encoder
            ratios |= of_pairs
    report("peers, CPU", results, ratios=ratios)


if __name__ == "__main__":
    main()
