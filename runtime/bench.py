"""How fast each variant of a bundle is on this machine, and how close that is to its limits.

The rules are those of trtexec and MLPerf: inputs that rotate, a warm-up that is not timed,
percentiles only if there are enough runs, and a warning if noise or copies spoil a figure.

B batch, N samples, T frames, M mels.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from .arrays import samples_from_waveform
from .audio.reader import read_audio
from .audio.wav_file import wav_bytes
from .backends.base import Backend, BackendKind
from .backends.choice import Candidate
from .backends.model_batch import ModelBatch, Spent
from .backends.registry import backend_kind
from .backends.silence import CHOICE
from .bundle import Bundle, Variant
from .frontend import clip_input, clip_log_mel
from .spec import FrontendSpec
from .system.cpus import usable_cpus
from .system.files import write_bytes

LEAST_RUNS: Final = 10
_RUNS_FOR_P99: Final = 500  # five of them are above p99
# Coefficient of variation. trtexec warns at 0.025, which a shared machine never reaches.
_NOISY: Final = 0.1
_INPUTS: Final = 8  # batches that take turns
_SPREAD: Final = 0.5  # of the lengths of recordings around their mean
_TRIES: Final = 5
_SIDE: Final = 2048  # rows and columns of the matrices whose product gives the ceiling
_COPY_BYTES: Final = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long something is measured. Of seconds and runs both must be reached."""

    seconds: float
    least_runs: int = LEAST_RUNS
    warm_up: tuple[float, int] = (0.2, 3)  # seconds, and runs
    sounding: float | None = None  # mean seconds of sound in a clip, behind which it is silent; None: all


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The best that all cores of the machine can do together."""

    sgemm: float  # FLOP/s of a product of float32 matrices
    copy: float  # bytes/s, read and written, of a copy in memory


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A variant on a backend at one batch size. Times are for a whole batch, in ms."""

    variant: str
    device: str
    batch: int
    at_once: int  # number of batches that run concurrently
    n: int
    p50: float
    p90: float
    p99: float | None  # None if there are too few runs
    highest: float
    variation: float  # standard deviation divided by mean
    clips_per_second: float
    to_device: float  # mean
    model: float  # mean
    from_device: float  # mean
    gflop_per_second: float | None  # counted as the direct convolutions do; faster ones do less
    share_of_roofline: float | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The steps before the model, for one clip on one core, in ms."""

    decode: float  # a WAV file as long as a clip, 44.1 kHz stereo
    log_mel: float


def ceiling() -> Ceiling:
    """Measures the ceiling: the best of a few tries."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    source, target = (np.ones(_COPY_BYTES // 4, np.float32) for _ in range(2))
    return Ceiling(
        sgemm=2 * _SIDE**3 / _best(lambda: a @ b),
        copy=2 * _COPY_BYTES / _best(lambda: np.copyto(target, source)),
    )


def preparation(spec: FrontendSpec, *, runs: int = 100) -> Preparation:
    """The median times to read a file and to compute its log-Mel."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        samples = rng.uniform(-0.5, 0.5, (int(44_100 * spec.clip_seconds), 2))
        write_bytes(path, wav_bytes(samples, 44_100))
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
    """Measures each batch size: one batch after the other, on all cores.

    A backend that runs batches concurrently is then measured as `rrtn score` uses it: a batch on
    each core. `batches` replaces all of these. A variant that takes samples runs one recording at a time,
    as long as a clip. Raises ModelError if the variant does not run.
    """
    kind, variant = candidate
    one_by_one = variant.input == "samples"  # of a recording as long as a clip
    flops = bundle.provenance.get("flops_per_clip")
    backend = kind.load(bundle, variant, None)
    for batch in (1,) if one_by_one else batches or kind.bench_batches:
        yield _measurement(bundle, backend, batch, 1, seconds, flops, limits)
    if kind.parallel and not batches:
        backend = kind.load(bundle, variant, 1)
        lanes, batch = kind.lanes(usable_cpus()), 1 if one_by_one else kind.batch_size
        yield _measurement(bundle, backend, batch, lanes, seconds, flops, limits)


def _measurement(
    bundle: Bundle,
    backend: Backend,
    batch: int,
    at_once: int,
    seconds: float,
    flops: int | None,
    limits: Ceiling | None,
) -> Measurement:
    kind = backend_kind(backend.device)
    spent = Spent()
    times = timed_runs(backend, bundle.spec, batch, at_once, Effort(seconds=seconds), spent)
    parts = {name: 1e3 * total / len(times) for name, total in asdict(spent).items()}
    rate = batch * at_once / statistics.fmean(times)
    variation = statistics.pstdev(times) / statistics.fmean(times)
    return Measurement(
        variant=backend.variant.name,
        device=backend.device,
        batch=batch,
        at_once=at_once,
        n=len(times),
        p50=1e3 * statistics.median(times),
        p90=1e3 * float(np.quantile(times, 0.9)),
        p99=1e3 * float(np.quantile(times, 0.99)) if len(times) >= _RUNS_FOR_P99 else None,
        highest=1e3 * max(times),
        variation=variation,
        clips_per_second=rate,
        **parts,
        gflop_per_second=rate * flops / 1e9 if flops else None,
        share_of_roofline=_share(backend.variant, kind, batch, rate, flops, limits),
        warnings=_warnings(parts, variation),
    )


def timed_runs(
    backend: Backend,
    spec: FrontendSpec,
    batch: int,
    at_once: int,
    effort: Effort,
    spent: Spent | None = None,
) -> list[float]:
    """Seconds of each run of `at_once` threads.

    `spent` gets where the time of all of them went. On a GPU each step is then waited for, so that no two
    batches overlap, as they do in `rrtn score`.
    """
    inputs = _inputs(spec, backend.variant, backend_kind(backend.device), batch, effort.sounding)
    parts = [Spent() if spent else None for _ in range(at_once)]
    with ThreadPoolExecutor(at_once) as threads:
        loops = [threads.submit(_timed, backend, inputs, effort, each) for each in parts]
        times = [run for loop in loops for run in loop.result()]
    for part in parts:
        if spent and part:
            spent.include(part)
    return times


def _timed(
    backend: Backend, inputs: Sequence[ModelBatch], effort: Effort, spent: Spent | None
) -> list[float]:
    """Seconds of each run after the warm-up."""
    stop, runs = time.perf_counter() + effort.warm_up[0], 0
    while time.perf_counter() < stop or runs < effort.warm_up[1]:
        backend.run(inputs[runs % len(inputs)])
        runs += 1
    times: list[float] = []
    stop = time.perf_counter() + effort.seconds
    while time.perf_counter() < stop or len(times) < effort.least_runs:
        begin = time.perf_counter()
        backend.run(inputs[len(times) % len(inputs)], spent)
        times.append(time.perf_counter() - begin)
    return times


def _inputs(
    spec: FrontendSpec, variant: Variant, kind: BackendKind, batch: int, sounding: float | None
) -> list[ModelBatch]:
    """Batches of noise at the level of real clips.

    With `sounding` they are about as long as that: recordings have half that length to one and a half times,
    and those that share a batch are chosen out of CHOICE batches.
    """
    rng = np.random.default_rng(batch)
    waveforms = (rng.uniform(-1, 1, (_INPUTS, spec.clip_samples)) * spec.peak).astype(np.float32)
    if sounding is not None:
        shares = rng.permutation(np.linspace(1 - _SPREAD / CHOICE, 1 + _SPREAD / CHOICE, _INPUTS))
        for waveform, share in zip(waveforms, shares, strict=True):
            waveform[round(share * sounding * spec.sampling_rate) :] = 0
    clips: Any = samples_from_waveform(waveforms)
    if variant.input != "waveform" or not kind.needs_gpu:
        clips = np.stack([clip_input(waveform, spec, variant.input) for waveform in waveforms])
    return [clips[(np.arange(batch) + i) % _INPUTS] for i in range(_INPUTS)]


def _share(
    variant: Variant, kind: BackendKind, batch: int, rate: float, flops: int | None, limits: Ceiling | None
) -> float | None:
    """The share of the rate that arithmetic and memory allow.

    None for anything but direct convolutions in float32 on the CPU: where the ceilings were measured, and
    how `flops` are counted.
    """
    if limits is None or flops is None or kind.needs_gpu or variant.precision != "fp32":
        return None
    if variant.plan or variant.kind != "onnx":  # they choose faster convolutions
        return None
    # Bytes a clip. Activations are not counted, because they may stay in the caches.
    weights = variant.size / batch
    share = rate * max(flops / limits.sgemm, weights / limits.copy)
    return share if share <= 1 else None  # the ceiling was measured while other programs ran


def _warnings(parts: dict[str, float], variation: float) -> list[str]:
    """The warnings of trtexec that apply here."""
    found = []
    if variation > _NOISY:
        found.append(f"times vary by {variation:.0%}")
    if max(parts["to_device"], parts["from_device"]) > parts["model"]:
        found.append("transfers take longer than the model")
    return found


def _best(action: Callable[[], object]) -> float:
    return min(_seconds(action) for _ in range(_TRIES))


def _median(action: Callable[[], object], runs: int) -> float:
    return statistics.median(_seconds(action) for _ in range(runs))


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
