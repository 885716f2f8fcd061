"""What rrtn data check prints: Table 1, the ratings, and how they go together."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Final

from .printing import NO_BREAK, Column, Table, fits, numbers, print_table, stdout_width, wrapped

if TYPE_CHECKING:
    from ..train.data.data_check import DataReport

_BARS: Final = " ▁▂▃▄▅▆▇█"
_SHOWN_PAIRS: Final = 5


def print_data_report(report: "DataReport") -> None:
    """Tables on stdout."""
    _print_table1(report)
    _print_labels(report)
    if report.histograms and report.data.targets:
        _print_ratings(report)
        _print_correlations(report)
    _print_classes(report)


def _print_table1(report: "DataReport") -> None:
    table = Table("", *(Column(split.split, words=True) for split in report.splits), records="columns")
    for label, values in {
        "clips": [f"{split.clips:,}" for split in report.splits],
        "minutes": [f"{split.minutes:.1f}" for split in report.splits],
        "speakers": [str(split.speakers) for split in report.splits],
        "countries": [
            ", ".join(f"{name or '?'} {n}" for name, n in split.countries.items()) for split in report.splits
        ],
        "seconds: min, 5%, median, 95%, max": [
            _five_numbers(split.seconds, ".2f") for split in report.splits
        ],
        f"longer than a clip of {report.clip_seconds:.2f} s, cropped": [
            str(split.longer_than_clip) for split in report.splits
        ],
        "peak dBFS: the same": [_five_numbers(split.peak_dbfs, "z.1f") for split in report.splits],
        "clipped": [str(split.clipped) for split in report.splits],
        "silent": [str(split.silent) for split in report.splits],
        "cannot be used": [str(split.bad) for split in report.splits],
    }.items():
        table.add_row(label, *values)
    print_table(table, title=str(report.data.path))


def _print_labels(report: "DataReport") -> None:
    """What there is of each target."""
    splits = [split.split for split in report.splits]
    table = Table("target", "scale", *numbers("values"), *numbers(*(f"blank in {split}" for split in splits)))
    for label in report.labels:
        blank = (str(label.blank[split]) for split in splits)
        table.add_row(label.name, label.scale, str(label.values), *blank)
    print_table(table, title="Targets", caption="values: distinct ones in Train")


def _print_classes(report: "DataReport") -> None:
    """The clips of each class."""
    for target, classes in report.classes.items():
        splits = [*next(iter(classes.values()))]
        table = Table("class", *numbers(*splits))
        for name, counts in classes.items():
            table.add_row(name, *(f"{counts[split]:,}" for split in splits))
        print_table(table, title=f"Clips of each class of {target}")


def _print_ratings(report: "DataReport") -> None:
    table = Table("target", *report.histograms)
    for i, target in enumerate(report.data.targets):
        table.add_row(target, *(_bars(counts[i].tolist()) for counts in report.histograms.values()))
    if report.data.columns.is_scaled:
        print_table(table, title="Ratings from the lowest to the highest of their scales, in tenths")
        return
    at_full = f"a target at exactly 1.0 in {report.one_at_full:.0%} of rated clips"
    print_table(table, title="Ratings from 0 to 1, in tenths", caption=at_full)


def _print_correlations(report: "DataReport") -> None:
    strongest = ", ".join(
        f"{pair.first} and {pair.second} {pair.r:z.2f}" for pair in report.pairs[:_SHOWN_PAIRS]
    )
    targets = report.data.targets
    table = Table("Pearson's r", *numbers(*(str(i + 1) for i in range(len(targets) - 1))))
    for i, row in enumerate(report.correlations.tolist()):
        known = ["-" if isnan(r) else f"{r:z.2f}" for r in row[:i]]
        table.add_row(f"{i + 1} {targets[i]}", *known, *[""] * (len(targets) - 1 - i))
    if fits(table, stdout_width()):
        print_table(table, caption=f"strongest: {strongest}" if strongest else "")
    elif strongest:
        print(*wrapped(f"Pearson's r, strongest: {strongest}", stdout_width()), sep="\n")


def _five_numbers(quantiles: dict[str, float], form: str) -> str:
    return (
        (2 * NO_BREAK).join(f"{quantiles[name]:{form}}" for name in ("min", "5%", "median", "95%", "max"))
        if quantiles
        else "-"
    )


def _bars(counts: Sequence[int]) -> str:
    """One character a count, the highest full; what is not zero is seen."""
    top = max(*counts, 1)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)
