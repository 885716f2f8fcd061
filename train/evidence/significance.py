"""Whether a difference in CCC is more than chance, by speakers.

The clips of one speaker are not independent evidence: with speaker effects, tests over clips call
more than 20% of null differences significant at 5% (docs/evaluation.md). CCC is a function of six
sums over clips, and a resample is a number for each speaker. All resamples are therefore one matrix
product.

R resamples, P speakers, S seeds of a method, n clips, K targets. Columns [K + 1] are the targets
and then their mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float64
from ...runtime.text import counted
from ..data.data_set import named_speakers
from ..method.metrics import confusion, uar_of_confusion

RESAMPLES: Final = 10_000
FEWEST_SPEAKERS: Final = 8  # with fewer, no interval is shown, and nothing is called significant
_MOST_UNNAMED: Final = 0.05  # of the clips: they may be of one person, or of as many as there are clips
LEVEL: Final = 0.05  # two-tailed
_SEED: Final = 0  # of all draws
_AT_A_TIME: Final = 1000  # resamples, so that many speakers, seeds and targets fit into memory

Counts = npt.NDArray[np.int64] | Float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Method a against method b on the same clips. All columns are [K + 1].

    NaN is what nobody knows: of a target that fewer than two clips have, and the evidence on one that too few
    speakers have rated.
    """

    difference: Float64  # CCC (challenge) of a minus that of b
    low: Float64  # 95% interval of it
    high: Float64
    p: Float64  # two-tailed, by swapping the methods speaker by speaker
    p_holm: Float64  # of the targets, adjusted for their number; of the mean, p itself
    speakers: int
    no_evidence: str = ""  # why intervals and p-values would mean nothing, in words

    @property
    def is_evidence(self) -> bool:
        """True if intervals and p-values mean something."""
        return not self.no_evidence

    def verdict(self, column: int) -> str:
        """A verdict in plain words, for one target or (-1) for the mean."""
        if not self.is_evidence or np.isnan(self.p_holm[column]):
            return "too few speakers to say"
        if self.p_holm[column] >= LEVEL:
            return "no difference shown"
        return "better" if self.difference[column] > 0 else "worse"

    def to_dict(self, targets: Sequence[str]) -> dict[str, Any]:
        """For --json. Intervals and p-values are None where there are too few speakers."""
        return {
            "speakers": self.speakers,
            "per_target": {
                name: {**self.figures(k), "verdict": self.verdict(k)}
                for k, name in enumerate(names_with_mean(targets))
            },
        }

    def figures(self, column: int) -> dict[str, float | None]:
        """The figures of one target or (-1) of the mean, as in `to_dict`."""
        evidence = {name: getattr(self, name)[column] for name in ("low", "high", "p", "p_holm")}
        shown = {name: or_none(value) if self.is_evidence else None for name, value in evidence.items()}
        return {"difference": or_none(self.difference[column]), **shown}


def names_with_mean(targets: Sequence[str]) -> list[str]:
    """Names of the columns [K + 1]. The last is "mean"; "mean of targets" where a target is called so."""
    name = "mean"
    while name in targets:
        name += " of targets"
    return [*targets, name]


def or_none(value: float) -> float | None:
    """The value; None, which JSON has a word for, in place of NaN."""
    return None if np.isnan(value) else float(value)


def have_evidence(rated: npt.ArrayLike, speakers: Sequence[str]) -> npt.NDArray[np.bool_]:
    """[K + 1]: whether enough named speakers have ratings [n, K] of a target, and of each for the mean."""
    known = ~np.isnan(np.asarray(rated, np.float64))
    enough = [not no_evidence_of(np.asarray(speakers)[column].tolist()) for column in known.T]
    return with_all(np.array(enough, dtype=bool), known.sum(0) >= 2)


def classes_have_evidence(classes: npt.ArrayLike, speakers: Sequence[str]) -> bool:
    """Whether enough named speakers have each of the classes [n] that any clip has; NaN is no class.

    A resample that lost the speakers of a class would be judged on the others, which is another measure.
    """
    known, names = np.asarray(classes, np.float64), np.asarray(speakers)
    present = np.unique(known[~np.isnan(known)])
    return bool(present.size) and not any(no_evidence_of(names[known == one].tolist()) for one in present)


def with_all(enough: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[K] -> [K + 1]: a mean is as good as the evidence on each of the targets that are in it."""
    return np.append(enough, bool(known.any() and enough[known].all()))


def no_evidence_of(speakers: Sequence[str]) -> str:
    """Why the clips of these speakers [n] give no interval, in words; "" where they do."""
    named, unnamed = named_speakers(speakers), sum(not name for name in speakers)
    if not named:
        return "no speaker is named, and clips of one speaker are no independent evidence"
    if named < FEWEST_SPEAKERS:
        return f"{counted(named, 'speaker')}, and fewer than {FEWEST_SPEAKERS} say nothing"
    if too_many_unnamed(unnamed, len(speakers)):
        return f"{unnamed} of {counted(len(speakers), 'clip')} name no speaker, and may be of one person"
    return ""


def too_many_unnamed(unnamed: npt.ArrayLike, clips: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether so many clips name no speaker that an interval would be of another thing."""
    return np.asarray(np.asarray(unnamed) > _MOST_UNNAMED * np.asarray(clips))


def ccc_interval(
    scores: npt.ArrayLike,
    rated: npt.ArrayLike,
    speakers: Sequence[str],
    *,
    resamples: int = RESAMPLES,
) -> tuple[Float64, Float64]:
    """The 95% interval (low, high), [K + 1] each, of the challenge CCC.

    scores [n, K], or [S, n, K] for several seeds; rated [n, K]. Speakers are drawn with
    replacement, and seeds, too, where there are several. With one speaker, both ends are that
    speaker's CCC.
    """
    sums, people = speaker_sums(scores, rated, speakers)
    return interval_of(_resampled([sums], people, resamples, np.random.default_rng(_SEED))[0])


def uar_interval(
    probabilities: npt.ArrayLike,
    classes: npt.ArrayLike,
    speakers: Sequence[str],
) -> tuple[float, float]:
    """The 95% interval (low, high) of the unweighted average recall of one class target.

    probabilities [n, C], or [S, n, C] for several seeds; numbers of classes [n]. Speakers are drawn with
    replacement, and seeds, too, where there are several. A resample counts the classes that it has: see
    `classes_have_evidence`.
    """
    p, known = np.asarray(probabilities), np.asarray(classes)
    p = p.reshape(-1, *p.shape[-2:])
    names, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    tables = np.array(
        [[confusion(s[speaker == i], known[speaker == i]) for i in range(len(names))] for s in p]
    )
    found = []
    for counts, weights in _draws(len(names), [len(p)], RESAMPLES, np.random.default_rng(_SEED)):
        of_seeds = [uar_of_confusion(np.tensordot(counts, of_seed, axes=1)) for of_seed in tables]  # [S, R]
        found.append(np.einsum("rs,sr->r", weights[0], np.array(of_seeds)))
    low, high = interval_of(np.concatenate(found))
    return float(low), float(high)


def compare(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    rated: npt.ArrayLike,
    speakers: Sequence[str],
    *,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compares two methods on the same clips.

    a, b [n, K], or [S, n, K] for as many seeds of each; rated [n, K]. The interval draws speakers, the same
    for both methods, and seeds within each method. The test swaps the two methods for random sets
    of speakers: if the methods are alike, swapping changes the difference by chance alone.
    """
    (sums_a, people), (sums_b, _) = (speaker_sums(scores, rated, speakers) for scores in (a, b))
    rng = np.random.default_rng(_SEED)
    drawn = _resampled([sums_a, sums_b], people, resamples, rng)
    everyone, known = np.ones((1, people)), known_targets(sums_a)
    ccc_a, ccc_b = (with_mean(_mean_ccc(everyone, sums), known) for sums in (sums_a, sums_b))
    difference = (ccc_a - ccc_b)[0]
    p = _swap_p(sums_a, sums_b, difference, people, resamples, rng)
    no_evidence = no_evidence_of(speakers)
    is_evidence = have_evidence(rated, speakers) | bool(no_evidence)  # then nothing is shown
    low, high, p = (np.where(is_evidence, x, np.nan) for x in (*interval_of(drawn[0] - drawn[1]), p))
    return Comparison(
        difference=difference,
        low=low,
        high=high,
        p=p,
        p_holm=np.append(holm(p[:-1]), p[-1]),
        speakers=named_speakers(speakers),
        no_evidence=no_evidence,
    )


def ccc_change_interval(
    scores: npt.ArrayLike,
    reference: npt.ArrayLike,
    rated: npt.ArrayLike,
    speakers: Sequence[str],
    *,
    resamples: int = 2000,
) -> tuple[float, float] | None:
    """The 95% interval of the mean challenge CCC of `scores` minus that of `reference`.

    All arrays are [n, K]. None where `have_evidence` says that one of the targets has none.
    """
    (sums, people), (before, _) = (speaker_sums(x, rated, speakers) for x in (scores, reference))
    if not have_evidence(rated, speakers)[-1]:
        return None
    drawn = _resampled([sums, before], people, resamples, np.random.default_rng(0))
    low, high = interval_of((drawn[0] - drawn[1])[:, -1])
    return float(low), float(high)


def holm(p: Float64) -> Float64:
    """p-values [K], adjusted for their number (Holm 1979). NaN is no test, and stays.

    The smallest of K is multiplied by K, the next by K - 1, and so on; the results never decrease.
    """
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests])]
    result = np.full_like(p, np.nan)
    result[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return result


def sizes_of_draws(resamples: int) -> list[int]:
    """As many resamples, so many at a time that they need little memory."""
    return [min(_AT_A_TIME, resamples - begin) for begin in range(0, resamples, _AT_A_TIME)]


def interval_of(found: Float64) -> tuple[Float64, Float64]:
    """Resamples [R, ...] -> both ends [...] of their 95% interval."""
    low, high = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low, high


def _draws(
    people: int, seeds: Sequence[int], resamples: int, rng: np.random.Generator
) -> Iterator[tuple[Counts, list[Float64]]]:
    """How often each speaker is drawn, [R, P], and the weights [R, S] of the seeds of each method."""
    for size in sizes_of_draws(resamples):
        counts = rng.multinomial(people, np.full(people, 1 / people), size=size)
        yield counts, [rng.multinomial(s, np.full(s, 1 / s), size=size) / s for s in seeds]


def _resampled(
    methods: Sequence[Float64], people: int, resamples: int, rng: np.random.Generator
) -> list[Float64]:
    """CCC [R, K + 1] of each method's sums [S, P, 6, K], for the same draws of speakers."""
    found: list[list[Float64]] = [[] for _ in methods]
    for counts, weights in _draws(people, [len(sums) for sums in methods], resamples, rng):
        for sums, of_seeds, parts in zip(methods, weights, found, strict=True):
            parts.append(with_mean(_mean_ccc(counts, sums, of_seeds), known_targets(sums)))
    return [np.concatenate(parts) for parts in found]


def _swap_p(
    a: Float64, b: Float64, difference: Float64, people: int, resamples: int, rng: np.random.Generator
) -> Float64:
    """[K + 1]: how often swapping gives a difference that is as large.

    Seeds of the two are paired in their order. The unswapped case is counted in (Phipson and Smyth 2010).
    """
    as_large, known = np.where(np.isnan(difference), np.nan, 1.0), known_targets(a)
    for size in sizes_of_draws(resamples):
        swapped = rng.integers(0, 2, (size, people))  # [R, P]
        of_a = _mean_ccc_of_parts([(1 - swapped, a), (swapped, b)])
        of_b = _mean_ccc_of_parts([(swapped, a), (1 - swapped, b)])
        found = with_mean(of_a, known) - with_mean(of_b, known)
        as_large += (np.abs(found) >= np.abs(difference) - 1e-12).sum(0)
    return as_large / (resamples + 1)


def _mean_ccc(counts: Counts, sums: Float64, weights: Float64 | None = None) -> Float64:
    """counts [R, P], sums [S, P, 6, K] -> CCC [R, K]: the mean over seeds, or weighted by [R, S]."""
    # [R, S, K]
    of_seeds = np.stack([ccc_of_sums(np.tensordot(counts, of_seed, axes=1)) for of_seed in sums], axis=1)
    return np.asarray(of_seeds.mean(1) if weights is None else np.einsum("rs,rsk->rk", weights, of_seeds))


def _mean_ccc_of_parts(parts: Sequence[tuple[Counts, Float64]]) -> Float64:
    """`_mean_ccc` where some speakers are of one method and the others of the other one, seed by seed."""
    pairs = zip(*(sums for _, sums in parts), strict=True)
    totals = [
        np.sum(
            [np.tensordot(counts, of_seed, axes=1) for (counts, _), of_seed in zip(parts, pair, strict=True)],
            axis=0,
        )
        for pair in pairs
    ]
    return np.asarray(np.mean([ccc_of_sums(total) for total in totals], axis=0))


def speaker_sums(scores: npt.ArrayLike, rated: npt.ArrayLike, speakers: Sequence[str]) -> tuple[Float64, int]:
    """[S, P, 6, K]: rated clips, and their sums of x, y, xx, yy and xy for each speaker; and P.

    x and y are taken relative to the mean rating of each target. A clip that is not rated (NaN) for a
    target adds nothing to it.
    """
    x, y = np.asarray(scores, np.float64), np.asarray(rated, np.float64)
    names, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    is_rated = ~np.isnan(y)
    # no CCC changes, and small variances keep their digits
    centre = y.mean(0) if is_rated.all() else np.nan_to_num(y).sum(0) / np.maximum(is_rated.sum(0), 1)
    x, y = np.where(is_rated, x.reshape(-1, *y.shape) - centre, 0), np.where(is_rated, y - centre, 0)
    ones = is_rated.astype(np.float64)
    terms = np.stack([np.broadcast_to(t, x.shape) for t in (ones, x, y, x * x, y * y, x * y)], axis=2)
    sums = np.zeros((len(x), len(names), *terms.shape[2:]))
    for of_seed, into in zip(terms, sums, strict=True):
        np.add.at(into, speaker, of_seed)
    return sums, len(names)


def ccc_of_sums(totals: Float64) -> Float64:
    """[R, 6, K] -> CCC (challenge: variances over n - 1, covariance over n) [R, K].

    A resample in which no clip is rated for a target gives it 0: nothing was predicted.
    """
    n, x, y, xx, yy, xy = np.moveaxis(totals, 1, 0)  # [R, K] each
    n = np.maximum(n, 1)
    m_x, m_y = x / n, y / n
    over = np.maximum(n - 1, 1)
    s_xx, s_yy = (xx - n * m_x**2) / over, (yy - n * m_y**2) / over
    spread = s_xx + s_yy + np.square(m_x - m_y)
    ccc: Float64 = 2 * (xy / n - m_x * m_y) / np.where(spread == 0, 1, spread)
    return ccc


def known_targets(sums: Float64) -> npt.NDArray[np.bool_]:
    """[S, P, 6, K] -> [K]: the targets that have a CCC, which takes two rated clips."""
    return np.asarray(sums[0, :, 0].sum(0) >= 2)


def with_mean(values: Float64, targets: npt.NDArray[np.bool_]) -> Float64:
    """[R, K] -> [R, K + 1]: NaN for all but these targets [K], and the mean over them."""
    mean = values[:, targets].mean(1) if targets.any() else np.full(len(values), np.nan)
    return np.column_stack([np.where(targets, values, np.nan), mean])
