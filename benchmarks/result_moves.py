"""What moved between two runs by more than its spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from result_files import Result, ratios_of

LEAST = 0.03  # of a ratio: memory layout and the like move it by as much from process to process
MANY = 1.5  # times the spread of one ratio: of some sixty, chance would move one or two by more than that


@dataclass(frozen=True)
class Move:
    """A ratio of two runs."""

    benchmark: str
    name: str
    old: dict[str, Any]
    new: dict[str, Any]

    @property
    def change(self) -> float:
        """Relative, on a logarithmic scale: above 0 where it got better."""
        change = math.log(self.new["median"] / self.old["median"])
        return change if self.new.get("better", "higher") == "higher" else -change

    @property
    def spread(self) -> float:
        """What it may move by chance: MANY times the distance of the quartiles in both runs, and no
        less than LEAST.

        Quartiles of few rounds lie too close together: n rounds count 1 + 2 / n times.
        """
        widths = [math.log(side["q75"] / side["q25"]) * (1 + 2 / side["n"]) for side in (self.old, self.new)]
        return max(LEAST, MANY * math.hypot(*widths))

    @property
    def verdict(self) -> str:
        """worse, better, or same."""
        return "same" if abs(self.change) <= self.spread else "better" if self.change > 0 else "worse"

    def __str__(self) -> str:
        """One line."""
        values = f"{self.old['median']:.3g} -> {self.new['median']:.3g}"
        change, spread = self.new["median"] / self.old["median"] - 1, math.expm1(self.spread)
        moved = f"{values} ({change:+.0%}, spread {spread:.0%})"
        return f"{self.verdict:6s} {self.benchmark} | {self.name} | {moved}"


def moves(old: Result, new: Result) -> list[Move]:
    """Every ratio that both have."""
    before, after = ratios_of(old), ratios_of(new)
    return [Move(*key, before[key], after[key]) for key in after if key in before]


def before_of(new: Result, results: Sequence[Result]) -> Result | None:
    """The last one of the same kind of machine that has a ratio in common."""
    older = [result for result in results if result.order < new.order and result.kind == new.kind]
    return next((result for result in reversed(older) if moves(result, new)), None)


def compare(old: Result, new: Result) -> bool:
    """Prints what moved; -> whether nothing got worse."""
    found = moves(old, new)
    print(f"{new.path.name} against {old.path.name}: {len(found)} ratios, each within its own run")
    for move in sorted(found, key=lambda move: move.change):
        if move.verdict != "same":
            print(f"  {move}")
    counts = {
        verdict: sum(move.verdict == verdict for move in found) for verdict in ("worse", "better", "same")
    }
    for line in _gone(old, new):
        print(f"  gone   {line}")
    print("  " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return not counts["worse"]


def _gone(old: Result, new: Result) -> list[str]:
    """Ratios that only the old one has; a benchmark that was not run is one line."""
    left = {benchmark for benchmark, _ in ratios_of(new)}
    lost = sorted(set(ratios_of(old)) - set(ratios_of(new)))
    names = [f"{benchmark} | {name if benchmark in left else 'all of it'}" for benchmark, name in lost]
    return list(dict.fromkeys(names))
