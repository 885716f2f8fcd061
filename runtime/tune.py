"""Which way to run a bundle is the fastest on this machine: measured, and kept for `auto`.

A way is a variant on a backend, with a batch size, a number of concurrent batches and of threads for each.
Every way that may be taken is compared with the variant fp32 first. The usual way of each variant on each
backend is measured before the others, which follow only where it came near to the best. The rounds go through
all ways in turns, and the best round of each counts, so that a moment in which other programs run does not
decide.
"""

import datetime
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from .arrays import Float32, Float64, samples_from_waveform, waveform_from_samples
from .backends.base import Backend
from .backends.choice import Candidate, backend_from_variant, candidates_of_variants
from .backends.cpu import CPU
from .backends.model_batch import ModelBatch, Outputs, padded
from .backends.tuning_file import Tuning, Use, Way, check_can_be_kept, keep_tuning
from .bench import Effort, timed_runs
from .bundle import Bundle
from .errors import ConfigError, ModelError
from .frontend import clip_input
from .probe_sounds import SCORE_LIMITS, extremes, voices
from .progress import Progress
from .spec import InputKind
from .system.cpus import usable_cpus

ALLOWED: Final = ("fp16", "bf16", "int8")  # what `--allow` may name
# bfloat16 has three bits less than float16. For int8 there are no ratings here for a CCC: its file has passed
# that gate, and may be as far from fp32 here as it was there, on other clips by half as much again.
LIMITS: Final = {**SCORE_LIMITS, "bf16": 8 * SCORE_LIMITS["fp16"], "int8": 0.05}
_ON_OTHER_CLIPS: Final = 1.5
_GATE_SIZES: Final = (1, 4, 16)  # of batches: a score must not depend on them
_ROUNDS: Final = 3
_FAR: Final = 1.5  # times as long as the best: what takes longer is not measured again
_WARM_UP: Final = (0.0, 1)
_LEAST_RUNS: Final = 2


class Plan(NamedTuple):
    """A way before it is measured."""

    candidate: Candidate
    use: Use
    batch: int
    lanes: int
    threads: int
    is_usual: bool  # how the backend runs this variant where nobody has measured

    @property
    def name(self) -> str:
        """For people."""
        what = f"{self.lanes} x {self.batch}" if self.use == "folders" else f"{self.threads} threads"
        return f"{self.candidate.name}, {what}"


@dataclass
class _Rounds:
    """The times of a way: seconds of a batch, one for each round."""

    plan: Plan
    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def cost(self) -> float:
        """Seconds a clip for folders, seconds of a clip for single clips."""
        return self.best / self.plan.batch / self.plan.lanes

    def way(self) -> Way:
        plan = self.plan
        return Way(
            variant=plan.candidate.variant.name,
            backend=plan.candidate.device,
            batch_size=plan.batch,
            lanes=plan.lanes,
            threads=plan.threads,
            milliseconds=round(1e3 * self.best, 3),
            clips_per_second=round(1 / self.cost, 2),
            spread=round(max(self.seconds) / self.best - 1, 3),
        )


def tuned(
    bundle: Bundle, *, allow: Sequence[str] = (), seconds: float = 0.5, length: float | None = None
) -> Tuning:
    """Measures every way that may be taken here, for at least `seconds` and two batches, and keeps the best.

    `length` is the mean of the recordings', in seconds; by default half a clip. `allow` names precisions
    below fp32 that `auto` may take. Raises ConfigError for others, ModelError if no
    way runs here, StoppedError, before anything is measured, where the cache takes no file.
    """
    if unknown := [name for name in allow if name not in ALLOWED]:
        raise ConfigError("--allow", ", ".join(unknown), wanted=f"some of {', '.join(ALLOWED)}")
    allowed = ("fp32", *allow)
    check_can_be_kept(bundle)
    candidates, not_taken = candidates_to_measure(bundle, allowed)
    if not candidates:
        raise _nothing_runs(bundle, not_taken)
    ways = [_Rounds(plan) for candidate in candidates for plan in plans_of(candidate)]
    sounding = bundle.spec.clip_seconds / 2 if length is None else length
    effort = Effort(seconds=seconds, least_runs=_LEAST_RUNS, warm_up=_WARM_UP, sounding=sounding)
    gate = _Gate(bundle)
    with Progress("tune", _ROUNDS * len(ways), "measurements") as bar:
        for turn in range(_ROUNDS + 1):
            due = _due(ways, turn)
            left = [one for one in due if _may_be_the_best(one, ways)]
            bar.advance(len(due) - len(left))
            for group in _by_session(left if turn % 2 == 0 else left[::-1]):
                candidate = group[0].plan.candidate
                if candidate.name not in not_taken:
                    problem = _measure(bundle, group, effort, None if turn else gate, bar)
                    not_taken |= {candidate.name: problem} if problem else {}
            ways = [one for one in ways if one.plan.candidate.name not in not_taken]
    return _kept(bundle, allowed, [one for one in ways if one.seconds], not_taken)


def _due(ways: list[_Rounds], turn: int) -> list[_Rounds]:
    """First the usual way of each candidate, then its other ways, then all of them again."""
    match turn:
        case 0:
            return [one for one in ways if one.plan.is_usual]
        case 1:
            return [one for one in ways if not one.plan.is_usual]
    return ways


def candidates_to_measure(bundle: Bundle, allowed: Sequence[str]) -> tuple[list[Candidate], dict[str, str]]:
    """What `auto` may take here in these precisions, and a reason for what it may not."""
    candidates, reasons = candidates_of_variants(bundle, on_all=True)
    found = []
    for candidate in candidates:
        if reason := _not_for_auto(bundle, candidate, allowed):
            reasons[candidate.name] = reason
        else:
            found.append(candidate)
    return found, reasons


def _not_for_auto(bundle: Bundle, candidate: Candidate, allowed: Sequence[str]) -> str:
    kind, variant = candidate
    if variant.input == "samples":
        return "takes whole recordings, one at a time"
    if variant.input == "waveform" and not kind.needs_gpu and len(bundle.variants) > 1:
        return "computes the log-Mel in its graph, which the decoders do faster"
    is_usual = variant.name in kind.preferred or len(bundle.variants) == 1
    if (kind.precision or not is_usual) and candidate.precision not in allowed:
        return f"{candidate.precision}: needs --allow {candidate.precision}"
    return "" if kind.may_choose(variant) else "made for another backend, or has not passed its gate"


def plans_of(candidate: Candidate) -> Iterator[Plan]:
    """Batches of a few sizes, on all cores and on half of them; and single clips on one core and on all."""
    cores, kind = usable_cpus(), candidate.kind
    usual = (kind.batch_size, kind.lanes(cores))
    for batch in sorted({max(1, kind.batch_size // part) for part in (1, 2, 4)}):
        for lanes in sorted({kind.lanes(cores), kind.lanes(max(1, cores // 2))}):
            yield Plan(candidate, "folders", batch, lanes, 1, is_usual=(batch, lanes) == usual)
    for threads in sorted({1, cores}) if kind.parallel else (1,):
        yield Plan(candidate, "clips", 1, 1, threads, is_usual=threads == 1)


def _by_session(rounds: Sequence[_Rounds]) -> Iterator[list[_Rounds]]:
    """The ways that one loaded model can go. One model is in memory at a time."""
    groups: dict[tuple[Any, ...], list[_Rounds]] = {}
    for one in rounds:
        candidate = one.plan.candidate
        groups.setdefault((candidate.device, candidate.variant.name, one.plan.threads), []).append(one)
    yield from groups.values()


def _measure(
    bundle: Bundle,
    group: Sequence[_Rounds],
    effort: Effort,
    gate: "_Gate | None",
    bar: Progress,
) -> str:
    """Adds a round to each way of the group; -> why it must not be taken, or ""."""
    kind, variant = group[0].plan.candidate
    try:
        backend = kind.load(bundle, variant, group[0].plan.threads)
        if gate and (problem := gate.problem(group[0].plan.candidate, backend)):
            return problem
        for one in group:
            plan = one.plan
            bar.advance(1, plan.name)
            times = timed_runs(backend, bundle.spec, plan.batch, plan.lanes, effort)
            one.seconds.append(float(np.mean(times) if plan.use == "folders" else np.median(times)))
    except ModelError as error:
        return f"{error.subject}: {error.came}" + (f", expected {error.wanted}" if error.wanted else "")
    finally:
        backend = None  # type: ignore[assignment]
        gc.collect()  # the next model shall not stand beside this one
    return ""


def _may_be_the_best(one: _Rounds, ways: Sequence[_Rounds]) -> bool:
    """False once it, or before its first round the usual way of its candidate, was far from the best."""
    of_use = [other for other in ways if other.plan.use == one.plan.use and other.seconds]
    candidate = one.plan.candidate
    usual = [other for other in of_use if other.plan.candidate == candidate and other.plan.is_usual]
    mine = [one] if one.seconds else usual
    return not mine or mine[0].cost <= _FAR * min(other.cost for other in of_use)


class _Gate:
    """Compares what a backend gives with the variant fp32 on ONNX Runtime, on sounds that are made here.

    Each published file has passed the gate of `rrtn export`; this one finds what another runtime or processor
    makes of it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        sounds = np.concatenate([voices(bundle.spec), extremes(bundle.spec)])
        self._samples = samples_from_waveform(sounds)
        reference = bundle.variant("fp32") or next(one for one in bundle.variants if one.input != "samples")
        self._expected = self._scores(backend_from_variant(bundle, reference, CPU.name))

    def problem(self, candidate: Candidate, backend: Backend) -> str:
        """Why its scores are not good enough; "" where they are. NaN is not."""
        widths = dict(zip(self._bundle.labels, self._widths.tolist(), strict=True))
        limit = share_allowed(candidate.precision, candidate.variant.parity, widths)
        for size in _GATE_SIZES:
            differences = np.abs(self._scores(backend, size) - self._expected) / self._widths
            if not float(differences.max()) <= limit:
                return f"scores differ from fp32 by {differences.max():.1e}, the limit is {limit:.1e}"
        return ""

    def _scores(self, backend: Backend, size: int = 16) -> Float32:
        clips = self._clips(backend.variant.input)
        parts = (clips[i : i + size] for i in range(0, len(clips), size))
        return Outputs.joined([backend.run(padded(part, size)).first(len(part)) for part in parts]).scores

    def _clips(self, kind: InputKind) -> ModelBatch:
        """As decoders hand them to a model: of a waveform the 16-bit samples."""
        if kind == "waveform":
            return self._samples
        waveforms = (waveform_from_samples(samples) for samples in self._samples)
        return np.array([clip_input(one, self._bundle.spec, kind) for one in waveforms])

    @property
    def _widths(self) -> Float64:
        """[K] of the labels' scales."""
        scales = self._bundle.meaning.scales if self._bundle.meaning else {}
        ends = [scales.get(label, (0.0, 1.0)) for label in self._bundle.labels]
        return np.array([high - low for low, high in ends])


def share_allowed(precision: str, parity: Mapping[str, Any] | None, widths: Mapping[str, float]) -> float:
    """Largest difference of a score, as a share of its scale's width.

    int8 may differ as it did at the export, and half as much again. `widths` are those of the labels' scales.
    """
    limit = LIMITS.get(precision, 0.0)
    if precision != "int8" or not parity or parity.get("max_abs") is None:
        return limit
    width = widths.get(parity.get("of") or "", max(widths.values()))
    at_export: float = parity["max_abs"] / width
    return max(limit, _ON_OTHER_CLIPS * at_export)


def _kept(
    bundle: Bundle, allowed: tuple[str, ...], rounds: Sequence[_Rounds], not_taken: dict[str, str]
) -> Tuning:
    if not rounds:
        raise _nothing_runs(bundle, not_taken)
    folders, clips = (
        min((one for one in rounds if one.plan.use == use), key=lambda one: one.cost)
        for use in ("folders", "clips")
    )
    tuning = Tuning(
        bundle=str(bundle.path.absolute()),
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        allowed=allowed,
        folders=folders.way(),
        clips=clips.way(),
        measured=tuple(
            {"use": one.plan.use, "rounds": len(one.seconds), **asdict(one.way())} for one in rounds
        ),
        not_taken=not_taken,
    )
    keep_tuning(bundle, tuning)
    return tuning


def _nothing_runs(bundle: Bundle, not_taken: dict[str, str]) -> ModelError:
    why = "; ".join(f"{name}: {reason}" for name, reason in not_taken.items())
    return ModelError(str(bundle.path), why, wanted="a way that runs here", fix="rrtn doctor")
