"""The model alone by every way that runs here: rrtn's variants on its backends, and the runtimes that one
could take in its place.

    python benchmarks/every_way.py [--encoders cnn14] [--rounds 5] [--tune cnn14] [--bundles DIR]

First on one thread, in batches of 16 and clip by clip, in processor time: `rrtn score` runs a batch on each
core. MNN takes the 16 as two of 8, which it is faster with. ncnn has no batches. With --tune also on all
cores and in seconds of the clock: what `--backend auto` takes after `rrtn tune --allow bf16,int8`, beside all
ways that came near to it, and OpenVINO with its hint for throughput.

Weights are random, because the time does not depend on them; `make .bundles` has made the files. All in
float32 give the same scores, which is checked before a time is printed. `make .peers` brings the others;
what is missing is left out, which is said.
"""

import argparse
import functools
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import runtimes
from files_to_scores import check_same, from_features, ort_run
from measure import Ratio, best_against_best, interleaved, ratio, report, summary
from random_bundle import kept_bundle, noise
from rrtn.runtime.arrays import Float32
from rrtn.runtime.backends.choice import backend_from_variant
from rrtn.runtime.backends.mnn_kind import MNN_KIND
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.system.cpus import has_bf16, usable_cpus
from rrtn.runtime.tune import candidates_to_measure, tuned
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS

BATCH = 16
_SINGLE_CLIPS = 2  # one after the other
_FAR = 2.0  # times as long as the best of its precision in the first round: not measured again
TARGETS = {
    "our best over the best peer's": 1.0,
    "CNN14, cpu-int8 over OpenVINO int8": 1.2,
    "CNN14, cpu-int8 over ONNX Runtime fp32": 3.5,
    "auto over the best": 0.95,
}
BASE = "ONNX Runtime fp32"
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Way:
    """One way to get the scores of a batch."""

    precision: str
    is_ours: bool
    scores: Callable[[Float32], Float32]
    size: int = BATCH  # of the batches that a batch is cut into


def ways_of(bundle: Bundle, batch: int, *, peers_first: bool) -> dict[str, Way]:
    """On one thread, by name. What is loaded later may be a quarter faster, whatever it is."""
    ours, peers = _ours(bundle), _peers(bundle, batch)
    return dict([*peers, *ours] if peers_first else [*ours, *peers])


def _ours(bundle: Bundle) -> Iterator[tuple[str, Way]]:
    """Each variant on each backend that `rrtn tune` would measure."""
    candidates, _ = candidates_to_measure(bundle, PRECISIONS)
    for candidate in candidates:
        kind, variant = candidate
        backend = kind.load(bundle, variant, 1)
        way = Way(candidate.precision, True, backend.scores, kind.batch_size)
        yield f"rrtn {variant.name} on {kind.name}", way


def _peers(bundle: Bundle, batch: int) -> Iterator[tuple[str, Way]]:
    """The same files, as the makers of these runtimes say."""
    fp32, int8 = (bundle.path / _variant_file(bundle, name) for name in ("fp32", "int8"))
    yield BASE, Way("fp32", False, ort_run(fp32, threads=1))
    if runtimes.openvino:
        openvino = functools.partial(runtimes.openvino_run, batch=batch, threads=1)
        yield "OpenVINO fp32", Way("fp32", False, openvino(fp32))
        yield "OpenVINO int8", Way("int8", False, openvino(int8))
        if has_bf16():
            yield "OpenVINO bf16", Way("bf16", False, openvino(fp32, precision="bf16"))
    if runtimes.MNN:
        size = min(batch, MNN_KIND.batch_size)
        yield "MNN fp32", Way("fp32", False, runtimes.mnn_run(fp32, batch=size, threads=1), size)
    if runtimes.ncnn and batch == 1 and (ncnn := runtimes.ncnn_run(fp32, threads=1)):
        yield "ncnn fp32", Way("fp32", False, ncnn)


def _variant_file(bundle: Bundle, name: str) -> str:
    variant = bundle.variant(name)
    assert variant, name
    return variant.file


def on_one_thread(
    encoder: EncoderName, bundle: Bundle, batch: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """-> a summary of each way, and ratios: of each to ONNX Runtime, of our best to the best peer's."""
    clips = noise(max(batch, _SINGLE_CLIPS))
    seconds: dict[str, list[float]] = {}
    differences: dict[str, float] = {}
    for peers_first in (False, True):
        ways = ways_of(bundle, batch, peers_first=peers_first)
        functions = {
            name: from_features(way.scores, clips, batch=min(way.size, batch)) for name, way in ways.items()
        }
        if not seconds:
            differences = check_same({name: run() for name, run in functions.items()}, reference=BASE)
            seconds = _processor_seconds(functions, 1)
            best = {
                way.precision: min(_of(seconds, ways, way.precision).values())[0] for way in ways.values()
            }
        left = {
            name: run
            for name, run in functions.items()
            if name == BASE or seconds[name][0] <= _FAR * best[ways[name].precision]
        }
        for name, values in _processor_seconds(left, rounds // 2 or 1).items():
            seconds[name] += values
        del functions, left
        if not peers_first:
            ways.clear()  # or the models of both halves would be in memory
        gc.collect()
    at = f"{encoder} batch {batch}"
    results = {
        f"{at}: {name}": summary(values[1:] or values, clips=len(clips))
        | {
            "ms_a_clip": round(1e3 * min(values) / len(clips), 2),
            "max_difference": round(differences[name], 8),
        }
        for name, values in seconds.items()
    }
    most = max(map(len, seconds.values()))
    measured = {name: values[1:] for name, values in seconds.items() if len(values) == most}
    return results, {f"{at}: {name}": value for name, value in _ratios(measured, ways)}


def _processor_seconds(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """After two calls: the first ones of a runtime are slow."""
    return interleaved(functions, repeats=rounds, warm_up=2, clock=time.process_time)


def _of(
    seconds: dict[str, list[float]], ways: dict[str, Way], precision: str, *, ours: bool | None = None
) -> dict[str, list[float]]:
    return {
        name: values
        for name, values in seconds.items()
        if ways[name].precision == precision and ours in (None, ways[name].is_ours)
    }


def _ratios(seconds: dict[str, list[float]], ways: dict[str, Way]) -> Iterator[tuple[str, Ratio]]:
    for name, values in seconds.items():
        if name != BASE:
            yield f"{name} over {BASE}", ratio(seconds[BASE], values)
    for precision in PRECISIONS:
        ours, theirs = (_of(seconds, ways, precision, ours=side) for side in (True, False))
        if ours and theirs:
            yield f"our best {precision} over the best peer's", best_against_best(ours, theirs)
    plan, peer = "rrtn cpu-int8 on cpu", "OpenVINO int8"
    if plan in seconds and peer in seconds:
        yield f"{plan} over {peer}", ratio(seconds[peer], seconds[plan])


def auto_against_the_best(
    encoder: EncoderName, bundle: Bundle, rounds: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """What `auto` takes after `rrtn tune --allow bf16,int8`, measured again beside what came near to it."""
    tuning = tuned(bundle, allow=PRECISIONS[1:])
    results: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    for use, taken in (("folders", tuning.folders), ("clips", tuning.clips)):
        near = _best_of_each(way for way in tuning.measured if way["use"] == use and way["rounds"] > 1)
        clips = BATCH * usable_cpus() * 2 if use == "folders" else 4
        functions = {_name_of(way): _run_of(bundle, way, clips) for way in near}
        if runtimes.openvino and use == "folders":
            throughput = runtimes.OpenvinoThroughput(bundle.path / _variant_file(bundle, "int8"), BATCH)
            batches = np.split(noise(clips), clips // BATCH)
            functions["OpenVINO int8, throughput"] = functools.partial(throughput.scores, batches)
        seconds = interleaved(functions, repeats=rounds, warm_up=1, pause=0.1)
        at = f"{encoder} {use}, all cores"
        results |= {f"{at}: {name}": summary(values, clips=clips) for name, values in seconds.items()}
        auto = _name_of(taken.to_dict())
        ratios[f"{at}: auto over the best"] = best_against_best({auto: seconds[auto]}, seconds)
    return results, ratios


def _best_of_each(ways: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each variant on each backend the fastest way."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for way in sorted(ways, key=lambda way: float(way["clips_per_second"])):
        best[way["variant"], way["backend"]] = way
    return list(best.values())


def _name_of(way: dict[str, Any]) -> str:
    return "rrtn {variant} on {backend}, {lanes} x {batch_size}, threads {threads}".format(**way)


def _run_of(bundle: Bundle, way: dict[str, Any], clips: int) -> Callable[[], object]:
    """As many clips through a way of `rrtn tune`, a batch on each of its lanes."""
    variant = bundle.variant(way["variant"])
    assert variant
    backend = backend_from_variant(bundle, variant, way["backend"], threads=way["threads"])
    batches = np.split(noise(clips), clips // way["batch_size"])
    lanes = ThreadPoolExecutor(way["lanes"])
    return lambda: list(lanes.map(backend.scores, batches))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tune", nargs="*", default=[], choices=ENCODERS, help="also on all cores")
    parser.add_argument("--bundles", type=Path, help="a folder that random_bundle.py has filled")
    arguments = parser.parse_args()
    if missing := runtimes.missing():
        print(f"{', '.join(missing)}: not there, and left out (make .peers)", file=sys.stderr)
    results: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RRTN_CACHE"] = folder  # what tune finds here is of no other use
        for encoder in arguments.encoders:
            bundle = kept_bundle(encoder, arguments.bundles or Path(folder))
            for batch in (BATCH, 1):
                of_ways, of_pairs = on_one_thread(encoder, bundle, batch, arguments.rounds)
                results |= of_ways
                ratios |= of_pairs
                gc.collect()
            if encoder in arguments.tune:
                of_ways, of_pairs = auto_against_the_best(encoder, bundle, arguments.rounds)
                results |= of_ways
                ratios |= of_pairs
    report("the model alone, every way", results, ratios=ratios, targets=TARGETS)


if __name__ == "__main__":
    main()
