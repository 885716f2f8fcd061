"""The gate: no file is published whose scores are not PyTorch's.

n validation clips, N samples, B batch, L columns of the scores.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ..runtime.arrays import Float32, Float64, Int16, Int64, samples_from_waveform, waveform_from_samples
from ..runtime.backends.base import Backend
from ..runtime.bundle import Variant
from ..runtime.errors import ModelError
from ..runtime.frontend import clip_input
from ..runtime.probe_sounds import SCORE_LIMITS
from ..runtime.spec import FrontendSpec
from ..train.evidence.significance import ccc_change_interval
from ..train.method.columns import Columns
from ..train.method.frontend import LogMel
from ..train.method.metrics import ccc_challenge, in_units
from ..train.method.model import TwinsNetwork

CCC_LIMIT: Final = 0.002  # largest loss of mean CCC on the validation clips
_BATCHES: Final = (1, 2, 7, 32)  # all clips run in the last size
_BATCHED_CLIPS: Final = 32  # so many clips, and the extremes, run in the other sizes, too
_TORCH_BATCH: Final = 16
_HALF_MAX: Final = 65504.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Clips with the scores that every variant must give, and with ratings."""

    clips: Float32  # [n + 4, N] in [-1, 1], the extremes last
    reference: Float32  # [n + 4, L]
    ratings: Float32  # [n, L], a class as 0 and 1; NaN: none
    speakers: tuple[str, ...]  # n
    lengths: Int64 | None = None  # [n + 4]: the samples of each recording; None: each fills its clip
    columns: Columns | None = None  # None: every score is a rating in 0 to 1
    of_recordings: "Recordings | None" = None  # for the variants that take samples, where some are wanted

    @property
    def sounds(self) -> Sequence[Float32]:
        """n + 4 recordings, of N samples at most: what scoring has of each, and a variant is given."""
        if self.lengths is None:
            return list(self.clips)
        return [clip[:length] for clip, length in zip(self.clips, self.lengths, strict=True)]

    def for_variant(self, variant: Variant) -> "Probe":
        """The clips, or the recordings."""
        if variant.input != "samples":
            return self
        assert self.of_recordings, "made for every export with such a variant"
        return self.of_recordings

    @property
    def widths(self) -> Float64:
        """[L] of the scales, which the limits are multiplied by."""
        if self.columns is None:
            return np.ones(self.reference.shape[1])
        return np.array([scale.width for scale in self.columns.spans])


@dataclass(frozen=True, kw_only=True, eq=False)
class Recordings(Probe):
    """Recordings of any length and level; `clips` are what rrtn hears of them."""

    recordings: tuple[Float32, ...]  # n + 4 times [N], N of any size

    @property
    def sounds(self) -> Sequence[Float32]:
        """The recordings: the graph itself sets their level and cuts them."""
        return self.recordings


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the scores of a variant are from the reference, and whether that is close enough."""

    clips: int
    batches: tuple[int, ...]
    max_abs: float  # in the units of the scale, as the limit
    p999_abs: float
    limit: float | None
    ccc: float  # mean over the columns, on the validation clips; of a class, of its probability
    ccc_reference: float
    # 95% of ccc - ccc_reference, resampling speakers; None for fewer than 8
    ccc_interval: tuple[float, float] | None
    of: str | None = None  # where scales differ, the column of max_abs: the one that is nearest to its limit

    @property
    def ccc_change(self) -> float:
        """Below 0 where the variant is worse than the reference."""
        return self.ccc - self.ccc_reference

    @property
    def failure(self) -> str:
        """What is wrong with the variant; "" where nothing is. NaN fails every limit."""
        if self.limit is not None and not self.max_abs <= self.limit:
            return f"scores differ from PyTorch's by {self.max_abs:.2e}, the limit is {self.limit:.2e}"
        if not abs(self.ccc_change) <= CCC_LIMIT:
            return f"CCC is {self.ccc:z.4f}, PyTorch's is {self.ccc_reference:z.4f}, the limit is {CCC_LIMIT}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """For bundle.json."""
        return {**asdict(self), "ccc_change": self.ccc_change}


def torch_scores(
    network: TwinsNetwork,
    spec: FrontendSpec,
    clips: Float32,
    *,
    lengths: Int64 | None = None,
    columns: Columns | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Float32:
    """clips [n, N] -> [n, L]: the reference scores, in the units of the scales.

    `lengths` [n] are the samples of each recording; None: each fills its clip.

    They come from training's own frontend and network, in evaluation mode.
    """
    network = network.cpu().eval()
    frontend = LogMel(spec)
    parts: list[Float32] = []
    with torch.no_grad():
        for part, sizes in _parts(clips, lengths):
            parts.append(network(frontend(part, sizes)).scores.numpy())
            advance(len(part))
    scores = np.concatenate(parts)
    return in_units(scores, columns).astype(np.float32) if columns and columns.is_scaled else scores


def _parts(clips: Float32, lengths: Int64 | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of clips [n, N], with the samples [n] of each recording."""
    sizes = np.full(len(clips), clips.shape[1]) if lengths is None else lengths
    both = (torch.from_numpy(each).split(_TORCH_BATCH) for each in (clips, sizes))
    yield from zip(*both, strict=True)


def parity_of_backend(backend: Backend, spec: FrontendSpec, probe: Probe) -> tuple[Parity, Float32]:
    """Runs the probe as scoring would; -> the figures, and the largest differences [n + 4].

    The differences are shares of the scales' widths. Where a score is not finite, no figure is a number.
    """
    probe = probe.for_variant(backend.variant)
    runs = _runs(backend, spec, probe)
    differences = _largest_differences(runs, probe.reference)
    shares = differences / probe.widths
    worst = int(shares.max(0).argmax())  # the column that is nearest to its limit
    limit, width = SCORE_LIMITS.get(backend.variant.precision), float(probe.widths[worst])
    n = len(probe.ratings)
    scores, reference = runs[0].scores[:n], probe.reference[:n]
    figures = Parity(
        clips=len(probe.clips),
        batches=_batches(backend),
        max_abs=math.nan,
        p999_abs=math.nan,
        limit=None if limit is None else limit * width,
        ccc=math.nan,
        ccc_reference=_mean_ccc(reference, probe.ratings),
        ccc_interval=None,
        of=probe.columns.labels[worst] if probe.columns and len(set(probe.widths.tolist())) > 1 else None,
    )
    if np.isfinite(differences).all():
        figures = replace(
            figures,
            max_abs=float(differences[:, worst].max()),
            p999_abs=float(np.quantile(shares, 0.999)) * width,
            ccc=_mean_ccc(scores, probe.ratings),
            ccc_interval=ccc_change_interval(scores, reference, probe.ratings, probe.speakers),
        )
    return figures, shares.max(axis=1)


class _ProbeRun(NamedTuple):
    rows: Int64  # [m] of the probe, in the order of the run
    scores: Float32  # [m, L]


def _batches(backend: Backend) -> tuple[int, ...]:
    return (1,) if backend.variant.input == "samples" else _BATCHES


def _runs(backend: Backend, spec: FrontendSpec, probe: Probe) -> list[_ProbeRun]:
    """All of the probe in the largest batch, some of it in smaller ones, and all in another order.

    In the last run a graph of waveforms is given 16-bit samples, as decoders hand them on.
    """
    kind, n, total = backend.variant.input, len(probe.ratings), len(probe.clips)
    features = [clip_input(sound, spec, kind) for sound in probe.sounds]
    decoded = _as_decoded(features) if kind == "waveform" else features
    *smaller, largest = _batches(backend)
    some = np.r_[np.arange(min(n, _BATCHED_CLIPS)), np.arange(n, total)]
    shuffled = np.random.default_rng(1).permutation(total)
    plan = [
        (features, np.arange(total), largest),
        *((features, some, size) for size in smaller),
        (decoded, shuffled, largest),
    ]
    return [_ProbeRun(rows, _run(backend, inputs, rows, size)) for inputs, rows, size in plan]


def _largest_differences(runs: Sequence[_ProbeRun], reference: Float32) -> Float32:
    """[n + 4, L] over all runs; infinite where a score is not finite."""
    differences = np.zeros_like(reference)
    for rows, scores in runs:
        found = np.where(np.isfinite(scores), scores, np.inf)
        np.maximum.at(differences, rows, np.abs(found - reference[rows]))
    return differences


def _mean_ccc(scores: Float32, rated: Float32) -> float:
    """Over the columns that at least two of the clips have."""
    return float(np.nanmean(ccc_challenge(scores, rated)))


def check_parity(backend: Backend, spec: FrontendSpec, probe: Probe, *, worst_to: Path) -> Parity:
    """Returns the figures of a variant that passes.

    Raises ModelError for one that fails. Its worst clip is then saved to `worst_to` (npz: waveform,
    expected).
    """
    parity, differences = parity_of_backend(backend, spec, probe)
    if parity.failure:
        worst, probe = int(np.argmax(differences)), probe.for_variant(backend.variant)
        fix = f"look at the worst clip, in {worst_to}"
        try:
            np.savez(worst_to, waveform=probe.sounds[worst], expected=probe.reference[worst])
        except OSError as error:
            fix = f"its worst clip could not be kept: {worst_to}: {error.strerror or error}"
        raise ModelError(backend.variant.file, f"{parity.failure}; it is not published", fix=fix)
    return parity


def check_half_range(encoder: torch.nn.Module, spec: FrontendSpec, probe: Probe) -> None:
    """Raises ModelError where a result within the encoder leaves the range of float16, on the probe's clips.

    Sums, such as those of a residual block, are results, too. The encoder is folded and in float32. On
    a CPU, ONNX Runtime computes float16 convolutions in float32, so running the graph there does not show it.
    """
    frontend, results = LogMel(spec), _Largest()
    with torch.no_grad():
        for part, sizes in _parts(probe.clips, probe.lengths):
            log_mel = frontend(part, sizes)
            with results:
                encoder(log_mel)
    if not results.size < _HALF_MAX:
        raise ModelError(
            "fp16",
            f"activations reach {results.size:.3g}",
            wanted=f"at most {_HALF_MAX:g}, the largest number in float16",
            fix="use fp32, or train again",
        )


class _Largest(TorchFunctionMode):
    """Within it, the largest absolute value that any function of torch gives."""

    size = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point() and result.numel():
            self.size = float(np.maximum(self.size, float(result.abs().max())))  # NaN stays
        return result


def _as_decoded(waveforms: Sequence[Float32]) -> Sequence[Float32] | Int16:
    """[n, N] 16-bit samples; the waveforms, where these are no such samples."""
    samples = samples_from_waveform(waveforms)
    return samples if np.array_equal(waveform_from_samples(samples), np.array(waveforms)) else waveforms


def _run(backend: Backend, features: Sequence[Float32] | Int16, rows: Int64, size: int) -> Float32:
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return np.concatenate([backend.scores(np.stack([features[row] for row in part])) for part in parts])
