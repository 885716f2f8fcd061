"""The int8 graphs against the fp32 one, `cpu-int8` with its fewer multiplications among them: their scores
on Val, and the time and the bytes that they take to make.

    python benchmarks/int8.py runs/a runs/b          the best checkpoints of runs
    python benchmarks/int8.py                        random weights, without scores

Calibration clips are of the Train split, or noise. TensorRT-RTX builds its engine where it is installed. How
fast they are is in every_way.py.
"""

import argparse
import functools
import importlib.util
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import report
from random_bundle import LABELS, SPEC, network_of, noise
from rrtn.export.engine import engine_from_onnx
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import graph_outputs, int8_for_cpu, int8_for_tensorrt
from rrtn.export.winograd.int8_variant import cpu_int8_variant_of
from rrtn.runtime.arrays import Float32, Float64, waveform_from_samples
from rrtn.runtime.frontend import clip_log_mel, decibels_behind
from rrtn.train.checkpoint import load_checkpoint
from rrtn.train.config import config_from_dict
from rrtn.train.data.data_set import read_data
from rrtn.train.data.device_clips import SplitClips, split_clips
from rrtn.train.evidence.best_checkpoint import network_from_weights
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.metrics import ccc_challenge
from rrtn.train.plan import data_folder
from rrtn.train.run_folder import RunFolder

TARGET_CCC_CHANGE = 0.002  # design.md section 8
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
    return Case(encoder, onnx_from_network(network_of(encoder), SPEC, LABELS), noise(32))


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
        onnx_from_network(network, config.frontend, tuple(info.labels)),
        log_mels(training, range(0, len(training), step)[:CALIBRATION_CLIPS]),
        Validation(log_mels(validation, range(len(validation))), validation.ratings.numpy()),
    )


def log_mels(split: SplitClips, indices: range) -> Float32:
    waveforms = (waveform_from_samples(split.store.waveform(i)) for i in indices)
    return np.array([clip_log_mel(waveform, split.spec)[None] for waveform in waveforms])


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 2)


def cpu_int8_of(case: Case, int8: bytes) -> bytes:
    """The variant `cpu-int8`."""
    silence = decibels_behind(SPEC)
    made = cpu_int8_variant_of(case.fp32, int8, case.calibration, silence, slower_too=True)
    return bytes(made.model.SerializeToString())


def accuracy(case: Case, int8: bytes) -> dict[str, float]:
    """Score differences, and the change of the mean CCC and of the target that changes most."""
    assert case.validation is not None
    reference, scores = (
        graph_outputs(model, "scores", case.validation.log_mels) for model in (case.fp32, int8)
    )
    before, after = (ccc(values, case.validation.ratings) for values in (reference, scores))
    return {
        **difference(scores, reference),
        "ccc_fp32": float(before.mean()),
        "ccc_change": float((after - before).mean()),
        "ccc_change_of_a_target": float(np.abs(after - before).max()),
    }


def difference(scores: Float32, reference: Float32) -> dict[str, float]:
    """int8 scores [n, K] against fp32 ones [n, K]. NaN in the scores is NaN in every figure.

    `rms_share` is rms over the standard deviation of the fp32 scores over clips, for the worst target.
    """
    error = np.abs(scores.astype(np.float64) - reference)
    rms = np.sqrt(np.square(error).mean(0))  # [K]
    # a target may be constant
    spread = np.maximum(reference.std(0, dtype=np.float64), np.finfo(np.float32).eps)
    return {
        "clips": len(scores),
        "max_abs": float(error.max()),
        "p999_abs": float(np.quantile(error, 0.999)),
        "rms": float(np.sqrt(np.square(error).mean())),
        "rms_share": float((rms / spread).max()),
    }


def ccc(scores: Float32, ratings: Float32) -> Float64:
    return ccc_challenge(scores, ratings)


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="int8 against fp32")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    arguments = parser.parse_args()
    cases = map(case_of_run, arguments.runs) if arguments.runs else map(random_case, arguments.encoders)
    results: dict[str, Any] = {}
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
            if target == "cpu" and case.validation:
                scores = accuracy(case, cpu_int8_of(case, int8))
                results[f"{case.name} for {CPU_INT8}: scores"] = rounded(scores)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # GB, all that came before included
    targets = {"ccc_change": TARGET_CCC_CHANGE}
    report("int8 against fp32", results, ratios={}, targets=targets, peak_memory_gb=round(peak, 2))


if __name__ == "__main__":
    main()
