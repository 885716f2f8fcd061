"""How fast each variant of a bundle is here, and how near to what the machine can do.

The rules are those of trtexec and MLPerf: inputs that rotate, a warm-up that is not timed,
percentiles only of enough runs, and a warning where the spread or the host spoils a figure. B
batch, N samples, T frames, M mels.
"""

import html
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import soundfile

from .. import __version__
from .arrays import waveform_from_samples
from .audio.reader import read_audio
from .backends.choice import Backend, Candidate, backend_from_variant
from .backends.engine_stamp import driver_version
from .backends.ort_backend import ModelBatch, Spent
from .bundle import Bundle, Variant
from .cpus import cpu_model, usable_cpus
from .frontend import clip_input, clip_log_mel
from .scoring.scorer import DEFAULT_BATCH
from .spec import FrontendSpec

BATCHES: Final = {"cpu": (1, 4, 16), "cuda": (1, 32, 256), "trt": (1, 32, 256)}
WARM_UP: Final = (0.2, 3)  # s, and runs, whichever takes longer
LEAST_RUNS: Final = 10
_RUNS_FOR_P99: Final = 500  # five of them are above it
_NOISY: Final = 0.1  # coefficient of variation; trtexec warns at 0.025, which a shared machine never reaches
_INPUTS: Final = 8  # batches that take turns
_SIDE: Final = 2048  # of the matrices whose product is the ceiling
_COPY_BYTES: Final = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the machine's cores can do at best, all of them together."""

    sgemm: float  # FLOP/s of float32 matrix products
    copy: float  # bytes/s, read and written, of a copy in memory


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A variant on a device at a batch size. Times are of a whole batch, in ms."""

    variant: str
    device: str
    batch: int
    at_once: int  # batches that run at the same time
    n: int
    p50: float
    p90: float
    p99: float | None  # None of too few runs
    highest: float
    variation: float  # standard deviation over mean
    clips_per_second: float
    to_device: float  # mean
    model: float  # mean
    from_device: float  # mean
    gflop_per_second: float | None
    share_of_roofline: float | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What comes before the model, for one clip on one core, in ms."""

    decode: float  # a WAV file of the clip's length, 44.1 kHz stereo
    log_mel: float


def ceiling() -> Ceiling:
    """The best of a few tries."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    source, target = (np.ones(_COPY_BYTES // 4, np.float32) for _ in range(2))
    return Ceiling(
        sgemm=2 * _SIDE**3 / _best(lambda: a @ b),
        copy=2 * _COPY_BYTES / _best(lambda: np.copyto(target, source)),
    )


def preparation(spec: FrontendSpec, *, runs: int = 100) -> Preparation:
    """Median times of reading a file and of its log-Mel."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, (int(44_100 * spec.clip_seconds), 2)), 44_100)
        decode = _median(lambda: read_audio(path, spec), runs)
    waveform = rng.uniform(-0.5, 0.5, spec.clip_samples).astype(np.float32)
    return Preparation(decode=1e3 * decode, log_mel=1e3 * _median(lambda: clip_log_mel(waveform, spec), runs))


def measured(
    bundle: Bundle,
    candidate: Candidate,
    *,
    batches: Sequence[int] = (),
    seconds: float = 3.0,
    limits: Ceiling | None = None,
) -> Iterator[Measurement]:
    """One after the other: each batch size alone on all cores, then, on the CPU, what `rrtn score` does.

    Raises ModelError where the variant does not run.
    """
    flops = bundle.provenance.get("flops_per_clip")
    backend = backend_from_variant(bundle, candidate.variant, candidate.device)
    for batch in batches or BATCHES[candidate.device]:
        yield _measurement(bundle, backend, batch, 1, seconds, flops, limits)
    if candidate.device == "cpu" and not batches:
        backend = backend_from_variant(bundle, candidate.variant, candidate.device, threads=1)
        yield _measurement(bundle, backend, DEFAULT_BATCH["cpu"], usable_cpus(), seconds, flops, limits)


def bench_document(
    bundle: Bundle,
    results: Sequence[Measurement],
    limits: Ceiling,
    before: Preparation,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """All that `rrtn bench --json` prints; `lines` is what stands below the table."""
    flops = bundle.provenance.get("flops_per_clip")
    work = f"a clip: {flops / 1e9:.2f} GFLOP in the model; " if flops else ""
    accuracy = [_accuracy(variant) for variant in bundle.variants if variant.parity]
    here = machine()
    return {
        "bundle": str(bundle.path),
        "machine": here,
        "ceiling": asdict(limits),
        "preparation": asdict(before),
        "flops_per_clip": flops,
        "measurements": [asdict(result) for result in results],
        "not_run": reasons,
        "lines": [
            f"{here['cpu']}, {here['cores']} cores: sgemm {limits.sgemm / 1e9:.0f} GFLOP/s, copy {limits.copy / 1e9:.1f} GB/s",
            f"{work}before it, on one core: reading {before.decode:.2f} ms (44.1 kHz stereo), log-Mel {before.log_mel:.2f} ms",
            *(f"against PyTorch: {', '.join(accuracy)}" for _ in accuracy[:1]),
            *(f"{name} did not run: {reason}" for name, reason in reasons.items()),
        ],
    }


def machine() -> dict[str, Any]:
    """What a figure means nothing without."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cpus(),
        "python": platform.python_version(),
        "rrtn": __version__,
        "onnxruntime": onnxruntime.__version__,
        "driver": driver_version(),
    }


def svg_chart(document: dict[str, Any]) -> str:
    """Clips a second of each measurement, as horizontal bars with their numbers; readable in greyscale."""
    rows = document["measurements"]
    largest = max(row["clips_per_second"] for row in rows)
    lines = [
        f'<text x="8" y="20">clips/s, {document["machine"]["cpu"]}, {document["machine"]["cores"]} cores</text>'
    ]
    for i, row in enumerate(rows):
        y, width = 34 + 24 * i, 420 * row["clips_per_second"] / largest
        name = f"{row['variant']} {row['device']} {row['at_once']} x {row['batch']}"
        lines += [
            f'<text x="188" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>',
            f'<rect x="196" y="{y}" width="{width:.1f}" height="18" fill="#33658a"/>',
            f'<text x="{202 + width:.1f}" y="{y + 14}">{row["clips_per_second"]:.1f}</text>',
        ]
    size = f'width="720" height="{46 + 24 * len(rows)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">{"".join(lines)}</svg>\n'


def _accuracy(variant: Variant) -> str:
    assert variant.parity is not None
    return f"{variant.name} max {variant.parity['max_abs']:.1e}"


def _measurement(
    bundle: Bundle,
    backend: Backend,
    batch: int,
    at_once: int,
    seconds: float,
    flops: int | None,
    limits: Ceiling | None,
) -> Measurement:
    inputs = _inputs(bundle.spec, backend, batch)
    spent = Spent()
    with ThreadPoolExecutor(at_once) as threads:
        loops = [
            threads.submit(_timed, backend, inputs, seconds, spent if i == 0 else Spent())
            for i in range(at_once)
        ]
        times = [time for loop in loops for time in loop.result()]
    own = len(times) / at_once  # runs that `spent` is of, about
    p50 = statistics.median(times)
    rate = batch * at_once / statistics.fmean(times)
    parts = {name: 1e3 * total / own for name, total in asdict(spent).items()}
    variation = statistics.pstdev(times) / statistics.fmean(times)
    return Measurement(
        variant=backend.variant.name,
        device=backend.device,
        batch=batch,
        at_once=at_once,
        n=len(times),
        p50=1e3 * p50,
        p90=1e3 * float(np.quantile(times, 0.9)),
        p99=1e3 * float(np.quantile(times, 0.99)) if len(times) >= _RUNS_FOR_P99 else None,
        highest=1e3 * max(times),
        variation=variation,
        clips_per_second=rate,
        **parts,
        gflop_per_second=rate * flops / 1e9 if flops else None,
        share_of_roofline=_share(backend, batch, rate, flops, limits),
        warnings=_warnings(parts, variation),
    )


def _timed(backend: Backend, inputs: Sequence[ModelBatch], seconds: float, spent: Spent) -> list[float]:
    """Seconds of each run, after the warm-up."""
    stop, runs = time.perf_counter() + WARM_UP[0], 0
    while time.perf_counter() < stop or runs < WARM_UP[1]:
        backend.run(inputs[runs % len(inputs)])
        runs += 1
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < LEAST_RUNS:
        begin = time.perf_counter()
        backend.run(inputs[len(times) % len(inputs)], spent)
        times.append(time.perf_counter() - begin)
    return times


def _inputs(spec: FrontendSpec, backend: Backend, batch: int) -> list[ModelBatch]:
    """Noise at the level that the model is used to."""
    rng = np.random.default_rng(batch)
    samples = (rng.uniform(-1, 1, (_INPUTS, spec.clip_samples)) * spec.peak * 32_767).astype(np.int16)
    if backend.variant.input == "waveform" and backend.device != "cpu":
        clips: Any = samples
    else:
        clips = np.stack(
            [clip_input(waveform_from_samples(each), spec, backend.variant.input) for each in samples]
        )
    return [clips[(np.arange(batch) + i) % _INPUTS] for i in range(_INPUTS)]


def _share(
    backend: Backend, batch: int, rate: float, flops: int | None, limits: Ceiling | None
) -> float | None:
    """Of the rate that arithmetic and memory allow; float32 on the CPU only, since the ceilings are
    those of float32 there.
    """
    if limits is None or flops is None or backend.device != "cpu" or backend.variant.precision != "fp32":
        return None
    weights = (
        backend.variant.size / batch
    )  # bytes a clip; activations are not counted, which may stay in the caches
    return rate * max(flops / limits.sgemm, weights / limits.copy)


def _warnings(parts: dict[str, float], variation: float) -> list[str]:
    """trtexec's, as far as they apply."""
    found = []
    if variation > _NOISY:
        found.append(f"times vary by {variation:.0%}")
    if max(parts["to_device"], parts["from_device"]) > parts["model"]:
        found.append("transfers take longer than the model")
    return found


def _best(action: Callable[[], object], *, tries: int = 5) -> float:
    return min(_seconds(action) for _ in range(tries))


def _median(action: Callable[[], object], runs: int) -> float:
    return statistics.median(_seconds(action) for _ in range(runs))


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
