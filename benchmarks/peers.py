"""The same model, with the same weights, on the same clips through the runtimes that one could take
instead; in one run.

    python benchmarks/peers.py [--encoders resnet18] [--repeats 5] [--share 0.25] [--without compile]

From files: rrtn's Scorer (with the variant that it takes by itself), audonnx with audinterface (by
default, and at its best), and a plain loop (read, resample, log-Mel, batches of 16) around PyTorch
eager, torch.compile, and OpenVINO. Model alone: the last three and ONNX Runtime, fed features that
are ready in memory. OpenVINO runs one batch after the other on all cores, and with its hint for
throughput.

All give the same scores (checked before a time is printed). OpenVINO and audinterface are no
dependencies of rrtn: `make .peers` brings them; lines of what is missing are left out, which is
said.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
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

try:
    import openvino
except ImportError:
    openvino = None
HAS_OPENVINO = openvino is not None


def openvino_run(model: Path) -> Runs:
    """One batch after the other, each on all cores."""
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": usable_cpus(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(openvino_model(model), "CPU", config)
    request = compiled.create_infer_request()
    return lambda batch: np.array(request.infer({0: batch})[compiled.output(0)])


def openvino_model(model: Path) -> Any:
    """With the batch size known, as it asks for."""
    loaded = openvino.Core().read_model(model)
    loaded.reshape(
        {loaded.input(0): [BATCH, *(part.get_length() for part in list(loaded.input(0).partial_shape)[1:])]}
    )
    return loaded


class OpenvinoThroughput:
    """Several batches at once, as many as it thinks best."""

    def __init__(self, model: Path) -> None:
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": usable_cpus(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._queue = openvino.AsyncInferQueue(
            openvino.Core().compile_model(openvino_model(model), "CPU", config)
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


def functions_of(encoder: EncoderName, files: Files, model: Path, without: list[str]) -> dict[str, Scores]:
    """Everything that is here, by name."""
    scorer = Scorer(cpu_variant_file(model), "cpu")
    runs: dict[str, Runs] = {"PyTorch eager": torch_run(network_of(encoder))}
    if "compile" not in without:
        runs["torch.compile"] = torch_run(torch.compile(network_of(encoder), dynamic=False))
    if HAS_OPENVINO:
        runs["OpenVINO"] = openvino_run(model)
    functions: dict[str, Scores] = {
        "rrtn": lambda: rrtn_scores(scorer, files.paths),
        **{name: from_files(run, files.paths) for name, run in runs.items()},
        **audonnx_functions(model, files.paths),
        "model alone: ONNX Runtime": from_features(ort_run(model), files.features),
        **{f"model alone: {name}": from_features(run, files.features) for name, run in runs.items()},
    }
    return functions | (openvino_functions(files, model) if HAS_OPENVINO else {})


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
    functions = functions_of(encoder, files, model_file(encoder, folder), arguments.without)
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
        ours = "model alone: ONNX Runtime" if name.startswith("model alone") else "rrtn"
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
    arguments = parser.parse_args()
    if not HAS_OPENVINO:
        print("openvino is not there: its lines are left out (make .peers)", file=sys.stderr)
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
