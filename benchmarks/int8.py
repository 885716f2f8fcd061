"""The int8 graphs against the fp32 one, `cpu-int8` with its fewer multiplications among them: speed on the
CPU in one run, time and bytes to make them, and their scores.

    python benchmarks/int8.py                        random weights: the speed does not depend on them
    python benchmarks/int8.py runs/a runs/b          the best checkpoints of runs, and their scores on Val
    python benchmarks/int8.py --batches 4 --repeats 3 runs/a

OpenVINO runs the files fp32 and int8 beside, where it is there (`make .peers`); all in batches of 16 and
clip by clip, on all cores, and with --every on one thread. The TensorRT graph is not timed: here it would
run in float; TensorRT-RTX builds its engine where it is installed. Calibration clips are of the Train split,
or noise.
"""

import argparse
import functools
import importlib.util
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import runtimes
import torch
from files_to_scores import ort_run
from measure import Ratio, interleaved, ratio, report, summary
from rrtn.export.engine import engine_from_onnx
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import int8_difference, int8_for_cpu, int8_for_tensorrt, onnx_scores
from rrtn.export.winograd.cpu_variant import NotFasterError
from rrtn.export.winograd.int8_variant import cpu_int8_variant_of
from rrtn.runtime import FrontendSpec
from rrtn.runtime.arrays import Float32, Float64, waveform_from_samples
from rrtn.runtime.frontend import clip_log_mel
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train.checkpoint import load_checkpoint
from rrtn.train.config import config_from_dict
from rrtn.train.data.data_set import read_data
from rrtn.train.data.device_clips import SplitClips, split_clips
from rrtn.train.evidence.best_checkpoint import network_from_weights
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.metrics import ccc_challenge
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.plan import data_folder
from rrtn.train.run_folder import RunFolder

TARGET_SPEEDUP, TARGET_CCC_CHANGE = 1.7, 0.002  # design.md section 8
CALIBRATION_CLIPS = 128
RTX = "tensorrt_rtx"
CPU_INT8 = "cpu-int8"


@dataclass(frozen=True)
class Validation:
    """log_mels [n, 1, T, M] and ratings [n, K] of a run's Val split."""

    log_mels: Float32
    ratings: Float32


@dataclass(frozen=True)
class Case:
    """An fp32 graph with the clips that calibrate it."""

    name: str
    fp32: bytes
    calibration: Float32
    validation: Validation | None = None


def random_case(encoder: EncoderName) -> Case:
    torch.manual_seed(0)
    spec = FrontendSpec()
    network = TwinsNetwork(encoder, n_mels=spec.n_mels, n_targets=10, projector_layers=0).eval()
    noise = np.random.default_rng(0).normal(0, 1, (32, 1, spec.frames, spec.n_mels)).astype(np.float32)
    return Case(encoder, onnx_from_network(network, spec, tuple("ABCDEFGHIJ"), "logmel"), noise)


def case_of_run(run: Path) -> Case:
    info, tensors = load_checkpoint(RunFolder(run).best, "weights")
    config = config_from_dict(info.config, source=str(run))
    data = read_data(data_folder(config), info.labels)
    training, validation = (
        split_clips(data, name, config.frontend, torch.device("cpu")) for name in ("Train", "Val")
    )
    step = max(1, len(training) // CALIBRATION_CLIPS)
    network = network_from_weights(config, tensors["weights"])
    return Case(
        f"{run.name} ({config.model.encoder})",
        onnx_from_network(network, config.frontend, tuple(info.labels), "logmel"),
        log_mels(training, range(0, len(training), step)[:CALIBRATION_CLIPS]),
        Validation(log_mels(validation, range(len(validation))), validation.ratings.numpy()),
    )


def log_mels(split: SplitClips, indices: range) -> Float32:
    waveforms = (waveform_from_samples(split.store.waveform(i)) for i in indices)
    return np.array([clip_log_mel(waveform, split.spec)[None] for waveform in waveforms])


def runners(files: dict[str, Path], batch: Float32, threads: int) -> dict[str, Callable[[], object]]:
    """ONNX Runtime, and OpenVINO where it is there, on each file."""
    runs = {name: ort_run(path, threads=threads) for name, path in files.items()}
    if runtimes.openvino:
        runs |= {
            f"{name} by OpenVINO": runtimes.openvino_run(path, batch=len(batch), threads=threads)
            for name, path in files.items()
            if name != CPU_INT8  # its products are an operator of ONNX Runtime
        }
    return {name: functools.partial(run, batch) for name, run in runs.items()}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 2)


def speed(
    case: Case, graphs: dict[str, bytes], batch: int, threads: int, repeats: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """A summary of each, and the speed-ups over fp32 in ONNX Runtime and, of `cpu-int8`, over OpenVINO."""
    clips = np.resize(case.calibration, (batch, *case.calibration.shape[1:]))
    at = f"{case.name} batch {batch}" + ("" if threads == usable_cpus() else f", {threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{name}.onnx") for name in graphs}
        for name, path in files.items():
            path.write_bytes(graphs[name])
        seconds = interleaved(runners(files, clips, threads), repeats=repeats, warm_up=1)
    summaries = {f"{at} {name}": summary(values, clips=batch) for name, values in seconds.items()}
    ratios = {
        f"{at}: {name} over fp32": ratio(seconds["fp32"], values)
        for name, values in seconds.items()
        if name != "fp32"
    }
    of_openvino = "int8 by OpenVINO"
    if CPU_INT8 in seconds and of_openvino in seconds:
        ratios[f"{at}: {CPU_INT8} over {of_openvino}"] = ratio(seconds[of_openvino], seconds[CPU_INT8])
    return summaries, ratios


def cpu_int8_of(case: Case, int8: bytes) -> bytes | None:
    """The variant `cpu-int8`; None where no convolution becomes faster."""
    try:
        made = cpu_int8_variant_of(case.fp32, int8, case.calibration, slower_too=True)
    except NotFasterError as error:
        print(f"{case.name}: {error}", file=sys.stderr)
        return None
    return bytes(made.model.SerializeToString())


def accuracy(case: Case, int8: bytes) -> dict[str, float]:
    """Score differences, and the change of the mean CCC and of the target that changes most."""
    assert case.validation is not None
    reference, scores = (onnx_scores(model, case.validation.log_mels) for model in (case.fp32, int8))
    before, after = (ccc(values, case.validation.ratings) for values in (reference, scores))
    return {
        **int8_difference(scores, reference).to_dict(),
        "ccc_fp32": float(before.mean()),
        "ccc_change": float((after - before).mean()),
        "ccc_change_of_a_target": float(np.abs(after - before).max()),
    }


def ccc(scores: Float32, ratings: Float32) -> Float64:
    return ccc_challenge(scores, ratings)


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="int8 against fp32")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--every", action="store_true", help="also on one thread")
    arguments = parser.parse_args()
    cases = map(case_of_run, arguments.runs) if arguments.runs else map(random_case, arguments.encoders)
    results: dict[str, Any] = {}
    speedups: dict[str, Ratio] = {}
    for case in cases:
        for target, make in (("cpu", int8_for_cpu), ("tensorrt", int8_for_tensorrt)):
            int8, seconds = timed(functools.partial(make, case.fp32, case.calibration))
            made = {
                "seconds": seconds,
                "calibration_clips": len(case.calibration),
                "fp32_mb": len(case.fp32) / 1e6,
            }
            results[f"{case.name} for {target}"] = rounded({**made, "int8_mb": len(int8) / 1e6})
            if case.validation:
                results[f"{case.name} for {target}: scores"] = rounded(accuracy(case, int8))
            if target == "tensorrt" and importlib.util.find_spec(RTX):
                (plan, _), seconds = timed(functools.partial(engine_from_onnx, int8, RTX, precision="int8"))
                results[f"{case.name} {RTX}"] = {"seconds": seconds, "plan_mb": round(len(plan) / 1e6, 1)}
            threads_of_ways = (usable_cpus(), 1) if arguments.every else (usable_cpus(),)
            ways = itertools.product(arguments.batches, threads_of_ways)
            graphs = {"fp32": case.fp32, "int8": int8}
            if target == "cpu" and (of_plan := cpu_int8_of(case, int8)):
                graphs[CPU_INT8] = of_plan
                if case.validation:
                    results[f"{case.name} for {CPU_INT8}: scores"] = rounded(accuracy(case, of_plan))
            for batch, threads in ways if target == "cpu" else ():
                summaries, ratios = speed(case, graphs, batch, threads, arguments.repeats)
                results |= summaries
                speedups |= ratios
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # GB, all that came before included
    targets = {"speedup": TARGET_SPEEDUP, "ccc_change": TARGET_CCC_CHANGE}
    report("int8 against fp32", results, ratios=speedups, targets=targets, peak_memory_gb=round(peak, 2))


if __name__ == "__main__":
    main()
