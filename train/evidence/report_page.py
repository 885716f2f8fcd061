"""What a report's page holds, as plain data. The template templates/report.html.j2 makes HTML of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...runtime.text import counted


@dataclass(frozen=True)
class Figure:
    """A drawing and the line that says what it shows."""

    caption: str
    drawing: Markup
    narrow: Markup | None = None  # the same for a phone


@dataclass(frozen=True)
class ShownTable:
    """Text in columns: the first one and those of `words` begin at the left, numbers end at the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the page says first."""

    run: Path
    data: Path
    seeds: str
    synthetic: bool
    epochs: str  # the best one, of each seed
    of_epochs: str
    judged_on: str  # Val, or folds
    epoch_name: str
    chosen: str  # on which clips the epoch was, and what that means
    unfinished: str  # how far the training is; empty where it is done
    score: float  # what the epoch was chosen by; of rated targets alone their mean CCC
    metric: str  # its name
    interval: str  # of it, or why there is none
    ridge: float | None  # its mean CCC
    mean_ccc: float | None  # the run's, where `score` is another measure
    clips: int
    speakers: str


@dataclass(frozen=True)
class Training:
    """Curves over the epochs; those of several runs or seeds where there are several."""

    charts: list[Figure]
    of_runs: Figure | None


@dataclass(frozen=True)
class Quality:
    """Metrics on the validation split."""

    intervals: Figure | None  # without rated targets there is none
    table: ShownTable | None
    scatters: list[Figure]
    confusions: list["Confusion"]


@dataclass(frozen=True)
class Confusion:
    """One class target: its recall, and which classes are taken for which."""

    name: str
    recall: str
    table: ShownTable  # clips by class, a row each, and by the likeliest class


@dataclass(frozen=True)
class Compared:
    """The run against another one."""

    other: str
    speakers: str
    table: ShownTable
    note: str  # why there are no intervals; empty where there are


@dataclass(frozen=True, kw_only=True)
class Export:
    """The run's bundle. Without one, or without its speeds, a table is None."""

    variants: ShownTable | None
    folder: Path
    measured: Path
    speeds: ShownTable | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # variants that were measured when they had other files

    @property
    def cores(self) -> str:
        """Cores of the machine."""
        return counted(self.machine["cores"], "core")


@dataclass(frozen=True)
class Rating:
    """What people said of a clip, and what the model says."""

    target: str
    rated: str  # as people wrote it; "-" where nobody rated
    predicted: str
    rated_share: float  # of the scale, for the bar
    predicted_share: float


@dataclass(frozen=True, kw_only=True)
class ShownClip:
    """A clip to look at and listen to."""

    name: str
    rank: str  # best or worst predicted
    error: float  # mean absolute error over the targets
    sound: str  # a WAV file as a data URL
    clean: Markup
    masked: Markup | None  # where training masks
    ratings: list[Rating]
