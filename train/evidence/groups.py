"""How a model does on groups of clips: women and men, countries, ages. CCC and bias of each, and differences.

The units are speakers, as in significance.py. R resamples, P speakers, S seeds, n clips, K targets. Columns
[K + 1] are the targets and then their mean.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float64
from ...runtime.errors import ConfigError
from ..data.column_names import named, words
from ..data.table_text import is_none
from ..data.targets import number
from .predictions import Predictions
from .significance import (
    FEWEST_SPEAKERS,
    LEVEL,
    RESAMPLES,
    ccc_of_sums,
    holm,
    interval_of,
    known_targets,
    names_with_mean,
    or_none,
    sizes_of_draws,
    speaker_sums,
    too_many_unnamed,
    with_all,
    with_mean,
)

MOST_GROUPS: Final = 20
_RANGE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*-\s*([0-9]+(?:\.[0-9]+)?)?\s*")

Mask = npt.NDArray[np.bool_]


class Range(NamedTuple):
    """From `low` to `high`, both included."""

    text: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What --by says: a column, and ranges of its numbers where there are some."""

    column: str
    ranges: tuple[Range, ...] = ()

    def group(self, cell: str) -> str:
        """The group of a clip; "" where it has none."""
        if is_none(cell):
            return ""
        if not self.ranges:
            return cell
        value = number(cell.strip())
        if value is None:
            return ""
        return next((part.text for part in self.ranges if part.low <= value <= part.high), "")


def grouping_of_text(text: str) -> Grouping:
    """Country_string, or Age:20-29,30-39,40- (40 or more). Raises ConfigError."""
    column, _, ranges = text.rpartition(":")
    found = [_RANGE.fullmatch(part) for part in ranges.split(",")]
    if not column or not all(found):
        if column and re.fullmatch(r"[\d\s.,-]+", ranges):
            raise ConfigError(f"--by {text}", ranges, wanted="ranges such as 20-29,30-39,40-")
        return Grouping(column=text)
    parts = [
        Range(part[0].strip(), float(part[1]), float(part[2]) if part[2] else math.inf)
        for part in found
        if part
    ]
    if bad := [part.text for part in parts if part.high < part.low]:
        raise ConfigError(f"--by {text}", ", ".join(bad), wanted="the lower end first, such as 20-29")
    ordered = sorted(parts, key=lambda part: part.low)
    if shared := [(a.text, b.text) for a, b in pairwise(ordered) if b.low <= a.high]:
        came = f"{' and '.join(shared[0])} share a number"
        raise ConfigError(f"--by {text}", came, wanted="each number in one range, such as 20-29,30-39")
    return Grouping(column=column, ranges=tuple(parts))


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """A value for each column [K + 1], and its 95% interval; none where there are too few speakers.

    NaN is a value that nobody knows, and the ends of a column that too few speakers have rated.
    """

    value: Float64
    low: Float64 | None
    high: Float64 | None

    def to_dict(self, column: int) -> dict[str, float | None]:
        """For --json."""
        columns = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if values is None else or_none(values[column]) for name, values in columns.items()}

    def without_mean(self) -> "Figures":
        """These figures without their mean, for targets whose units differ."""
        value, low, high = (
            None if x is None else _without_mean(x) for x in (self.value, self.low, self.high)
        )
        assert value is not None
        return Figures(value=value, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The clips of one group."""

    name: str
    clips: int
    speakers: int
    rated: tuple[int, ...]  # clips that have a rating of each target [K]
    ccc: Figures  # challenge CCC
    bias: Figures  # mean of predicted minus rated


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupDifference:
    """One group minus another one. There is no p where one of them has too few speakers."""

    first: str
    second: str
    ccc: Figures
    bias: Figures
    p: tuple[Float64, Float64] | None = None  # of CCC and of bias, [K + 1], two-tailed
    p_holm: tuple[Float64, ...] | None = None  # adjusted

    def verdict(self, column: int = -1) -> str:
        """In plain words, for one target or (-1) for the mean."""
        if self.p_holm is None:
            return "too few speakers to say"
        pairs = zip(("CCC", "bias"), self.p_holm, strict=True)
        tested = [(name, p[column]) for name, p in pairs if not math.isnan(p[column])]
        if not tested:
            return "too few speakers to say"
        differing = [name for name, p in tested if p < LEVEL]
        return f"{' and '.join(differing)} differ" if differing else "no difference shown"

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For --json."""
        kinds = {}
        for place, (kind, figures) in enumerate((("ccc", self.ccc), ("bias", self.bias))):
            found = {name: p and p[place] for name, p in (("p", self.p), ("p_holm", self.p_holm))}
            kinds[kind] = {
                name: figures.to_dict(k)
                | {key: None if p is None else or_none(float(p[k])) for key, p in found.items()}
                for k, name in enumerate(names)
            }
        return {"first": self.first, "second": self.second, **kinds}


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """All groups of one --by."""

    grouping: Grouping
    targets: tuple[str, ...]
    groups: tuple[Group, ...]
    differences: tuple[GroupDifference, ...]
    without: int  # clips that are in no group

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        names = names_with_mean(self.targets)
        return {
            "by": self.grouping.column,
            "clips_without": self.without,
            "groups": {
                group.name: {
                    "clips": group.clips,
                    "speakers": group.speakers,
                    "rated": dict(zip(self.targets, group.rated, strict=True)),
                    **{
                        kind: {name: figures.to_dict(k) for k, name in enumerate(names)}
                        for kind, figures in (("ccc", group.ccc), ("bias", group.bias))
                    },
                }
                for group in self.groups
            },
            "differences": [difference.to_dict(names) for difference in self.differences],
        }


def group_report(
    grouping: Grouping,
    cells: Mapping[str, Mapping[str, str]],
    seeds: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    one_scale: bool = True,
) -> GroupReport:
    """`cells` are file_id -> column -> text; `seeds` are predictions of the same rated targets and clips.

    A target that fewer than two clips of a group have is unknown there, and no part of any mean. The bias of
    targets that are not on `one_scale` has no mean.

    Raises ConfigError for a column that is not there, and for too many groups.
    """
    one = seeds[0]
    of_clip = _groups_of_clips(grouping, cells, one.file_ids)
    clips = Counter(filter(None, of_clip))
    names = [name for name in _in_order(grouping, clips) if clips[name]]
    if not 1 <= len(names) <= MOST_GROUPS:
        raise ConfigError(
            f"--by {grouping.column}",
            f"{len(names)} groups",
            wanted=f"1 to {MOST_GROUPS}",
            fix="give ranges of numbers: --by Age:20-29,30-39" if names else "name another column",
        )
    sums = dict(zip(names, _sums_of_groups(seeds, of_clip, names), strict=True))
    rng = np.random.default_rng(0)
    pairs = [_difference((a, b), sums[a], sums[b], rng, resamples) for a, b in combinations(names, 2)]
    groups = [_group(name, clips[name], sums[name], rng, resamples) for name in names]
    if not one_scale:
        groups = [replace(group, bias=group.bias.without_mean()) for group in groups]
        pairs = [
            replace(pair, bias=pair.bias.without_mean(), p=pair.p and (pair.p[0], _without_mean(pair.p[1])))
            for pair in pairs
        ]
    return GroupReport(
        grouping=grouping,
        targets=one.targets,
        groups=tuple(groups),
        differences=tuple(_adjusted(pairs)),
        without=of_clip.count(""),
    )


def _in_order(grouping: Grouping, names: Iterable[str]) -> list[str]:
    return [part.text for part in grouping.ranges] or sorted(names)


def _groups_of_clips(
    grouping: Grouping, cells: Mapping[str, Mapping[str, str]], file_ids: Sequence[str]
) -> list[str]:
    columns = [*next(iter(cells.values()), {})]
    asked = grouping.column
    column = asked if asked in columns else named(columns, ["".join(words(asked))])
    if not column:
        raise ConfigError(f"--by {asked}", "no such column", wanted=f"one of {', '.join(columns)}")
    return [grouping.group(cells[file_id][column]) for file_id in file_ids]


class _Sums(NamedTuple):
    """Sums of one group: a row for each speaker of all groups, and who of them has clips in it."""

    sums: Float64  # [S, P, 6, K] as `speaker_sums` has them
    people: Mask  # [P]
    named: Mask  # [P]: the same without the one who has no name, and may be several

    @property
    def rated(self) -> Float64:
        """[K]: clips with a rating."""
        counts: Float64 = self.sums[0, :, 0].sum(0)
        return counts

    @property
    def known(self) -> Mask:
        """[K]: the targets that have a CCC here."""
        return known_targets(self.sums)

    @property
    def is_evidence(self) -> Mask:
        """[K + 1]: whether enough speakers have ratings of a target, and of each for the mean."""
        of_target = (self.sums[0, self.named, 0] > 0).sum(0)
        unnamed = self.rated - self.sums[0, self.named, 0].sum(0)
        enough = (of_target >= FEWEST_SPEAKERS) & ~too_many_unnamed(unnamed, self.rated)
        return with_all(enough, self.known)


def _sums_of_groups(
    seeds: Sequence[Predictions], of_clip: Sequence[str], names: Sequence[str]
) -> list[_Sums]:
    """All groups are centred alike, so that their speakers can be exchanged."""
    one = seeds[0]
    everybody, speakers = np.unique(np.asarray(one.speakers), return_inverse=True)
    group = np.array([names.index(name) if name in names else len(names) for name in of_clip])
    units = speakers * (len(names) + 1) + group
    found, _ = speaker_sums(np.array([seed.scores for seed in seeds]), one.rated, units)
    sums = np.zeros((len(seeds), len(everybody), len(names) + 1, *found.shape[2:]))
    speaker, of_group = np.divmod(np.unique(units), len(names) + 1)
    sums[:, speaker, of_group] = found
    people = [np.isin(np.arange(len(everybody)), speaker[of_group == g]) for g in range(len(names))]
    return [_Sums(sums[:, :, g], of, of & (everybody != "")) for g, of in enumerate(people)]


def _figures(totals: Float64, targets: Mask) -> tuple[Float64, Float64]:
    """[S, R, 6, K] -> CCC and bias, [R, K + 1] each, means over seeds; NaN for all but these targets [K]."""
    ccc = np.mean([ccc_of_sums(of_seed) for of_seed in totals], axis=0)
    bias = ((totals[:, :, 1] - totals[:, :, 2]) / np.maximum(totals[:, :, 0], 1)).mean(0)
    return with_mean(ccc, targets), with_mean(bias, targets)


def _without_mean(columns: Float64) -> Float64:
    return np.append(columns[:-1], np.nan)


def _totals(counts: Float64, sums: Float64) -> Float64:
    """counts [R, P], sums [S, P, 6, K] -> [S, R, 6, K]."""
    return np.stack([np.tensordot(counts, of_seed, axes=1) for of_seed in sums])


def _drawn(strata: Sequence[Mask], size: int, rng: np.random.Generator) -> Float64:
    """[R, P]: how often each speaker is drawn, with replacement within each stratum."""
    counts = np.zeros((size, len(strata[0])))
    for stratum in strata:
        if n := int(stratum.sum()):
            counts[:, stratum] = rng.multinomial(n, np.full(n, 1 / n), size=size)
    return counts


def _group(name: str, clips: int, of: _Sums, rng: np.random.Generator, resamples: int) -> Group:
    values = [found[0] for found in _figures(_totals(np.ones((1, len(of.people))), of.sums), of.known)]
    speakers = int(of.named.sum())
    drawn = []
    if speakers >= FEWEST_SPEAKERS:
        draws = (_drawn([of.people], size, rng) for size in sizes_of_draws(resamples))
        drawn = [_figures(_totals(counts, of.sums), of.known) for counts in draws]
    ccc, bias = (
        _with_ends(value, [part[kind] for part in drawn], of.is_evidence) for kind, value in enumerate(values)
    )
    rated = tuple(of.rated.astype(int).tolist())
    return Group(name=name, clips=clips, speakers=speakers, rated=rated, ccc=ccc, bias=bias)


def _with_ends(value: Float64, drawn: Sequence[Float64], is_evidence: Mask) -> Figures:
    if not drawn:
        return Figures(value=value, low=None, high=None)
    low, high = (np.where(is_evidence, end, np.nan) for end in interval_of(np.concatenate(drawn)))
    return Figures(value=value, low=low, high=high)


def _difference(
    names: tuple[str, str], a: _Sums, b: _Sums, rng: np.random.Generator, resamples: int
) -> GroupDifference:
    """The interval draws the speakers of each group; the test exchanges them between the groups."""
    everyone = np.ones((1, len(a.people)))
    targets = a.known & b.known
    is_evidence = with_all((a.is_evidence & b.is_evidence)[:-1], targets)
    values = _minus(_totals(everyone, a.sums), _totals(everyone, b.sums), targets)
    drawn, p = [], None
    if min(a.named.sum(), b.named.sum()) >= FEWEST_SPEAKERS:
        strata = [a.people & ~b.people, b.people & ~a.people, a.people & b.people]
        draws = (_drawn(strata, size, rng) for size in sizes_of_draws(resamples))
        drawn = [_minus(_totals(counts, a.sums), _totals(counts, b.sums), targets) for counts in draws]
        p = _exchange_p(a, b, [np.where(is_evidence, value[0], np.nan) for value in values], rng, resamples)
    ccc, bias = (
        _with_ends(value[0], [part[kind] for part in drawn], is_evidence) for kind, value in enumerate(values)
    )
    return GroupDifference(first=names[0], second=names[1], ccc=ccc, bias=bias, p=p)


def _minus(a: Float64, b: Float64, targets: Mask) -> tuple[Float64, Float64]:
    """Differences of CCC and of bias, [R, K + 1] each, from totals [S, R, 6, K]."""
    (ccc_a, bias_a), (ccc_b, bias_b) = _figures(a, targets), _figures(b, targets)
    return ccc_a - ccc_b, bias_a - bias_b


def _exchange_p(
    a: _Sums, b: _Sums, found: Sequence[Float64], rng: np.random.Generator, resamples: int
) -> tuple[Float64, Float64]:
    """[K + 1] each: how often differences of CCC and bias are as large where speakers are exchanged.

    Speakers of one group are dealt anew to the two, as many as before; those who have clips in both swap
    these. If the groups are alike, that changes the difference by chance alone. The case as it is
    counts, too (Phipson and Smyth 2010). NaN where `found` is.
    """
    targets = a.known & b.known
    as_large = [np.where(np.isnan(values), np.nan, 1.0) for values in found]
    for size in sizes_of_draws(resamples):
        keeps = exchanges(a.people, b.people, size, rng)
        exchanged = _minus(
            _totals(keeps, a.sums) + _totals(1 - keeps, b.sums),
            _totals(keeps, b.sums) + _totals(1 - keeps, a.sums),
            targets,
        )
        for difference, values, count in zip(exchanged, found, as_large, strict=True):
            count += (np.abs(difference) >= np.abs(values) - 1e-12).sum(0)  # noqa: PLW2901  # in place
    ccc, bias = (count / (resamples + 1) for count in as_large)
    return ccc, bias


def exchanges(a: Mask, b: Mask, size: int, rng: np.random.Generator) -> Float64:
    """[R, P]: 1 where a speaker's clips keep their group, 0 where they change it.

    `a` and `b` [P] are who has clips in each group. Those in one alone are dealt, so that each group has as
    many as before.
    """
    alone, both = np.flatnonzero(a ^ b), np.flatnonzero(a & b)
    keeps = np.ones((size, len(a)))
    keeps[:, both] = rng.integers(0, 2, (size, len(both)))
    in_a = rng.permuted(np.tile(np.arange(len(alone)) < (a & ~b).sum(), (size, 1)), axis=1)
    keeps[:, alone] = in_a == a[alone]
    return keeps


def _adjusted(pairs: Sequence[GroupDifference]) -> list[GroupDifference]:
    """With Holm's adjustment: of the targets over pairs and targets, of their mean over the pairs."""
    known = [pair.p for pair in pairs if pair.p]
    if not known:
        return [*pairs]
    p = np.array(known)  # [pairs, 2, K + 1]
    adjusted = np.empty_like(p)
    for kind in (0, 1):
        adjusted[:, kind, :-1] = holm(p[:, kind, :-1].ravel()).reshape(len(p), -1)
        adjusted[:, kind, -1] = holm(p[:, kind, -1])
    remaining = iter(adjusted)
    return [replace(pair, p_holm=tuple(next(remaining))) if pair.p else pair for pair in pairs]
