"""The model alone by every way that runs here: rrtn's variants on its backends, and the runtimes that one
could take in its place.

    python benchmarks/every_way.py [--encoders cnn14] [--rounds 5] [--tune cnn14] [--bundles DIR]

With --tune first on all cores and in seconds of the clock: what `--backend auto` takes after `rrtn tune
--allow bf16,int8`, beside all ways that came near to it, and OpenVINO with its hint for throughput. Then on
one core, in batches of 16 and clip by clip, in processor time: `rrtn score` runs a batch on each core. MNN
takes the 16 as two of 8, which it is faster with. ncnn has no batches.

Weights are random, because the time does not depend on them; `make .bundles` has made the files. All in
float32 give the same scores, which is checked before a time is printed. `make .peers` brings the others;
what is missing is left out, which is said.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import runtimes
from files_to_scores import check_same, from_features, ort_run
from measure import Ratio, best_against_best, interleaved, ratio, report, summary
from random_bundle import kept_bundle, noise
from rrtn.runtime.arrays import Float32
from rrtn.runtime.backends.base import BackendKind
from rrtn.runtime.backends.choice import backend_from_variant
from rrtn.runtime.backends.mnn_kind import MNN_KIND
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.system.cpus import has_bf16, usable_cpus
from rrtn.runtime.tune import candidates_to_measure, tuned
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS

BATCH = 16
_SINGLE_CLIPS = 2  # one after the other
_LOADS = 4  # pairs of them, in both orders, unless _ENOUGH (s) has gone by after fewer
_ENOUGH = 12.0
_FAR = 1.3  # times as long as the best of its side and precision in the first round: not measured again
TARGETS = {
    "our best over the best peer's": 1.0,
    "CNN14, cpu-int8 over OpenVINO int8": 1.2,
    "CNN14, cpu-int8 over ONNX Runtime fp32": 3.5,
    "auto over the best": 0.95,
}
BASE = "ONNX Runtime fp32"
PLAN = "rrtn cpu-int8 on cpu"
INT8_PEER = "OpenVINO int8"
ALWAYS = (BASE, PLAN, INT8_PEER)  # what the targets name
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Way:
    """One way to get the scores of a batch."""

    precision: str
    is_ours: bool
    load: Callable[[], runtimes.Runs | None]  # None: it does not run this model
    size: int = BATCH  # of the batches that a batch is cut into


def ways_of(bundle: Bundle, batch: int) -> dict[str, Way]:
    """With one thread, by name: ours, then the peers."""
    return {**dict(_ours(bundle)), **dict(_peers(bundle, batch))}


def _ours(bundle: Bundle) -> Iterator[tuple[str, Way]]:
    """Each variant on each backend that `rrtn tune` would measure."""
    candidates, _ = candidates_to_measure(bundle, PRECISIONS)
    for candidate in candidates:
        kind, variant = candidate
        load = functools.partial(_load, kind, bundle, variant)
        yield f"rrtn {variant.name} on {kind.name}", Way(candidate.precision, True, load, kind.batch_size)


def _load(kind: BackendKind, bundle: Bundle, variant: Variant) -> runtimes.Runs:
    return kind.load(bundle, variant, 1).scores


def _peers(bundle: Bundle, batch: int) -> Iterator[tuple[str, Way]]:
    """The same files, as the makers of these runtimes say."""
    fp32, int8 = (bundle.path / _variant_file(bundle, name) for name in ("fp32", "int8"))
    yield BASE, _peer("fp32", ort_run, fp32)
    if runtimes.openvino:
        yield "OpenVINO fp32", _peer("fp32", runtimes.openvino_run, fp32, batch=batch)
        yield INT8_PEER, _peer("int8", runtimes.openvino_run, int8, batch=batch)
        if has_bf16():
            yield "OpenVINO bf16", _peer("bf16", runtimes.openvino_run, fp32, batch=batch, precision="bf16")
    if runtimes.MNN:
        size = min(batch, MNN_KIND.batch_size)
        yield "MNN fp32", replace(_peer("fp32", runtimes.mnn_run, fp32, batch=size), size=size)
    if runtimes.ncnn and batch == 1:
        yield "ncnn fp32", _peer("fp32", runtimes.ncnn_run, fp32)


def _peer(precision: str, load: Callable[..., runtimes.Runs | None], model: Path, /, **options: Any) -> Way:
    return Way(precision, False, functools.partial(load, model, threads=1, **options))


def _variant_file(bundle: Bundle, name: str) -> str:
    variant = bundle.variant(name)
    assert variant, name
    return variant.file


def on_one_core(
    encoder: EncoderName, bundle: Bundle, batch: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """-> a summary of each way, and ratios: of each to ONNX Runtime, of our best to the best peer's.

    Half of the rounds run models that were loaded in the other order, the peers' first: what is loaded later
    may be a quarter faster, whatever it is. Two loads of one model differ by some percent of a call of a few
    milliseconds, so that quick ones are loaded again and again.
    """
    clips = noise(max(batch, _SINGLE_CLIPS))
    ways = ways_of(bundle, batch)
    functions = _loaded(ways, clips, batch)
    differences = check_same({name: run() for name, run in functions.items()}, reference=BASE)
    seconds = interleaved(functions, repeats=1, warm_up=0, warm_caches=True, clock=time.process_time)
    near = {name: ways[name] for name in _near(seconds, ways)}
    for name in functions.keys() - near.keys():
        del functions[name]
    begin = time.perf_counter()
    for _ in range(_LOADS):
        for order in (near, dict(reversed(near.items()))):
            functions = functions or _loaded(order, clips, batch)
            _add_rounds(seconds, functions, rounds // 2 or 1)
            functions = {}
            gc.collect()  # or the models of both would be in memory
        if time.perf_counter() - begin > _ENOUGH:
            break
    at = f"{encoder} batch {batch}"
    results = {
        f"{at}: {name}": summary(values[1:] or values, clips=len(clips))
        | {
            "ms_a_clip": round(1e3 * min(values) / len(clips), 2),
            "max_difference": round(differences[name], 8),
        }
        for name, values in seconds.items()
    }
    measured = {name: seconds[name][1:] for name in near}
    return results, {f"{at}: {name}": value for name, value in _ratios(measured, ways)}


def _loaded(ways: dict[str, Way], clips: Float32, batch: int) -> dict[str, Callable[[], Float32]]:
    """In the order of `ways`."""
    return {
        name: from_features(run, clips, batch=min(way.size, batch))
        for name, way in ways.items()
        if (run := way.load())
    }


def _near(seconds: dict[str, list[float]], ways: dict[str, Way]) -> Iterator[str]:
    """The ways that are worth more rounds."""
    for name, (first, *_) in seconds.items():
        way = ways[name]
        best = min(_of(seconds, ways, way.precision, ours=way.is_ours).values())[0]
        if name in ALWAYS or first <= _FAR * best:
            yield name


def _add_rounds(
    seconds: dict[str, list[float]], functions: dict[str, Callable[[], Float32]], rounds: int
) -> None:
    """Adds processor times. The first call of a model that was just loaded is slow, and is not counted."""
    more = interleaved(functions, repeats=rounds, warm_up=1, warm_caches=True, clock=time.process_time)
    for name, values in more.items():
        seconds[name] += values


def _of(
    seconds: dict[str, list[float]], ways: dict[str, Way], precision: str, *, ours: bool
) -> dict[str, list[float]]:
    return {
        name: values
        for name, values in seconds.items()
        if (ways[name].precision, ways[name].is_ours) == (precision, ours)
    }


def _ratios(seconds: dict[str, list[float]], ways: dict[str, Way]) -> Iterator[tuple[str, Ratio]]:
    for name, values in seconds.items():
        if name != BASE:
            yield f"{name} over {BASE}", ratio(seconds[BASE], values)
    for precision in PRECISIONS:
        ours, theirs = (_of(seconds, ways, precision, ours=side) for side in (True, False))
        if ours and theirs:
            yield f"our best {precision} over the best peer's", best_against_best(ours, theirs)
    if PLAN in seconds and INT8_PEER in seconds:
        yield f"{PLAN} over {INT8_PEER}", ratio(seconds[INT8_PEER], seconds[PLAN])


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Nothing that starts meanwhile takes another one.

    OpenVINO, told that batches will run on two cores, takes up to an eighth more processor time for one that
    runs alone.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usual)})
    yield
    os.sched_setaffinity(0, usual)


def auto_against_the_best(
    encoder: EncoderName, bundle: Bundle, rounds: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """What `auto` takes after `rrtn tune --allow bf16,int8`, measured again beside what came near to it."""
    tuning = tuned(bundle, allow=PRECISIONS[1:], length=2 * bundle.spec.clip_seconds)
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
    """The fastest way of each variant on each backend."""
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
        bundles = {name: kept_bundle(name, arguments.bundles or Path(folder)) for name in arguments.encoders}
        for encoder in [encoder for encoder in bundles if encoder in arguments.tune]:
            of_ways, of_pairs = auto_against_the_best(encoder, bundles[encoder], arguments.rounds)
            results |= of_ways
            ratios |= of_pairs
        for encoder, batch in itertools.product(bundles, (BATCH, 1)):
            with one_core():
                of_ways, of_pairs = on_one_core(encoder, bundles[encoder], batch, arguments.rounds)
            results |= of_ways
            ratios |= of_pairs
            gc.collect()
    report("the model alone, every way", results, ratios=ratios, targets=TARGETS)


if __name__ == "__main__":
    main()
