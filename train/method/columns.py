"""What the columns of a model's scores mean: ratings on a scale first, then classes.

K ratings, J class targets, C classes in all, L = K + C columns. Neither torch nor NumPy: settings are
checked before they are imported.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from ...runtime.errors import ConfigError
from ...runtime.text import short

AUTO: Final = "auto"  # a scale that is the range of Train's ratings
_SCALE: Final = re.compile(
    r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*:\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*"
)


class Scale(NamedTuple):
    """The lowest and the highest rating that people could give."""

    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> float:
        """From the lowest rating to the highest."""
        return self.high - self.low

    def __str__(self) -> str:
        """As --scale takes it: 1:9."""
        return f"{plain_number(self.low)}:{plain_number(self.high)}"


UNIT: Final = Scale()


class ScaleChoice(NamedTuple):
    """What --scale says."""

    of_all: Scale | None  # of the targets without one of their own; None: not given
    of_target: dict[str, Scale]
    is_auto: bool  # the range of Train's ratings, where no other scale is given

    def given(self, target: str) -> Scale | None:
        """What is said of the target, by its name or of all; None where nothing is."""
        return self.of_target.get(target, self.of_all)


@dataclass(frozen=True, kw_only=True)
class ClassTarget:
    """A column of the data with one of several classes for each clip."""

    name: str
    classes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the score columns: Type=Laugh."""
        return tuple(f"{self.name}={name}" for name in self.classes)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of the scores."""

    targets: tuple[str, ...]  # [K]
    scales: tuple[Scale, ...]  # [K]
    classes: tuple[ClassTarget, ...] = ()  # [J]

    @property
    def labels(self) -> tuple[str, ...]:
        """[L]: the rated targets, then the classes of each class target."""
        return (*self.targets, *(label for target in self.classes for label in target.labels))

    @property
    def names(self) -> tuple[str, ...]:
        """[K + J]: the rated targets, then the class targets."""
        return (*self.targets, *(target.name for target in self.classes))

    @property
    def groups(self) -> tuple[slice, ...]:
        """[J]: which of the columns belong to each class target."""
        ends = accumulate([len(self.targets), *(len(target.classes) for target in self.classes)])
        return tuple(slice(begin, end) for begin, end in pairwise(ends))

    @property
    def is_scaled(self) -> bool:
        """Whether a rating has another scale than 0 to 1."""
        return any(scale != UNIT for scale in self.scales)

    @property
    def spans(self) -> tuple[Scale, ...]:
        """[L]: the lowest and the highest value of each column; of a class those of a probability."""
        return (*self.scales, *(UNIT for _ in self.labels[len(self.targets) :]))


def columns_of_settings(
    targets: Sequence[str], scale: Sequence[str], class_targets: Sequence[str], classes: Sequence[str]
) -> Columns:
    """The columns that a run's settings name, once training has filled them in (DataConfig).

    Raises ConfigError where a class target has fewer than two classes, or a class is of no class target.
    """
    choice = scale_choice(scale)
    counts = [len(classes_of_labels(name, classes)) for name in class_targets]
    if min(counts, default=2) < 2 or sum(counts) != len(classes):
        wanted = f"two or more of NAME=CLASS for each of {short(list(class_targets))}"
        raise ConfigError("data.classes", short(list(classes)), wanted=wanted)
    return Columns(
        targets=tuple(targets),
        scales=tuple(choice.given(name) or UNIT for name in targets),
        classes=tuple(
            ClassTarget(name=name, classes=classes_of_labels(name, classes)) for name in class_targets
        ),
    )


def classes_of_labels(name: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Type, ["Awe", "Type=Laugh"] -> ("Laugh",)."""
    return tuple(label.removeprefix(f"{name}=") for label in labels if label.startswith(f"{name}="))


def scale_settings(columns: Columns, choice: ScaleChoice) -> tuple[str, ...]:
    """The setting data.scale that gives these columns again; empty where all are 0 to 1."""
    named = [f"{name}={scale}" for name, scale in zip(columns.targets, columns.scales, strict=True)]
    return (*([AUTO] if choice.is_auto else []), *(named if columns.is_scaled or choice.is_auto else []))


def scale_choice(entries: Sequence[str]) -> ScaleChoice:
    """["1:9"], ["Valence=-1:1", "Arousal=1:5"] or ["auto"]. Raises ConfigError."""
    of_all: Scale | None = None
    of_target: dict[str, Scale] = {}
    for entry in entries:
        name, _, text = entry.rpartition("=")
        if entry == AUTO:
            continue
        if name := name.strip():
            if name in of_target:
                raise ConfigError("--scale (data.scale)", f"{name} twice", wanted="one scale for each target")
            of_target[name] = _scale(entry, text)
        elif of_all is None:
            of_all = _scale(entry, text)
        else:
            raise _refused(entry)
    if of_all and AUTO in entries:
        raise _refused(",".join(entries))
    return ScaleChoice(of_all, of_target, AUTO in entries)


def same_scales(asked: Sequence[str], own: Sequence[str], targets: Sequence[str]) -> bool:
    """Whether entries of data.scale mean what a run has resolved, as `scale_settings` writes it.

    Raises ConfigError.
    """
    theirs, ours = scale_choice(asked), scale_choice(own)
    if theirs.is_auto:  # what was found in the data is named in the run's
        return ours.is_auto and all(ours.of_target.get(name) == it for name, it in theirs.of_target.items())
    return not ours.is_auto and all(
        (theirs.given(name) or UNIT) == (ours.given(name) or UNIT) for name in targets
    )


def scales_of_targets(entries: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Those of `scale_choice` that are not named, or are named for one of the targets."""
    return [entry for entry in entries if entry.rpartition("=")[0].strip() in ("", *targets)]


def _scale(entry: str, text: str) -> Scale:
    found = _SCALE.fullmatch(text)
    try:
        scale = Scale(float(found[1]), float(found[2])) if found else None
    except ValueError:  # such as 1.2.3
        scale = None
    if scale is None or not (math.isfinite(scale.width) and scale.width > 0):
        raise _refused(entry)
    return scale


def _refused(entry: str) -> ConfigError:
    wanted = "NAME=LOW:HIGH, and for the other targets one LOW:HIGH such as 1:9, or auto"
    return ConfigError("--scale (data.scale)", short(entry), wanted=wanted)


def plain_number(value: float) -> str:
    """1 for 1.0, 0.25 for 0.25."""
    return repr(float(value)).removesuffix(".0")
