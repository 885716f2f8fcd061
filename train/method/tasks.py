"""The tasks of the vocal-burst challenges: which labels, on which scale, judged how, submitted in which form.

Names and forms are those of the organisers' baselines, github.com/HumeAI/competitions (ExVo2022, A-VB2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ...runtime.challenge import EMOTIONS, in_order_of_submission

TaskName = str  # one of TASK_NAMES, or empty
# Mean CCC over the rated targets, mean UAR over the class targets, the mean over all targets, ExVo's S_MTL.
Metric = Literal["ccc", "uar", "ccc_uar", "s_mtl"]
METRIC_NAMES: Final[dict[Metric, str]] = {
    "ccc": "mean CCC",
    "uar": "mean UAR",
    "ccc_uar": "mean of CCCs and UARs",
    "s_mtl": "S_MTL",
}

_COUNTRIES: Final = ("China", "United States", "South Africa", "Venezuela")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a challenge asks for."""

    name: str
    targets: tuple[str, ...] = ()  # rated columns
    class_targets: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    metric: Metric = "ccc"  # that the challenge ranks by, and that chooses the best epoch
    by_error: tuple[str, ...] = ()  # rated targets that are judged by their mean absolute error
    submitted: tuple[str, ...] = ()  # columns of a submission, behind File_ID


def _culture_targets() -> tuple[str, ...]:
    """In the organisers' order: Surprise comes last, for all countries."""
    first = [f"{country}_{emotion}" for country in _COUNTRIES for emotion in EMOTIONS[:-1]]
    return (*first, *(f"{country}_{EMOTIONS[-1]}" for country in _COUNTRIES))


TASKS: Final = (
    Task(name="avb-high", targets=EMOTIONS, submitted=EMOTIONS),
    Task(name="avb-two", targets=("Valence", "Arousal"), submitted=("Valence", "Arousal")),
    Task(name="avb-culture", targets=_culture_targets(), submitted=_culture_targets()),
    Task(name="avb-type", class_targets=("Voc_Type",), metric="uar", submitted=("Voc_Type",)),
    Task(
        name="exvo-multitask",
        targets=(*EMOTIONS, "Age"),
        class_targets=("Country",),
        scale=("auto", *(f"{emotion}=0:1" for emotion in EMOTIONS)),
        metric="s_mtl",
        by_error=("Age",),
        submitted=("Country", "Age", *EMOTIONS),
    ),
)
TASK_NAMES: Final = ("", *(task.name for task in TASKS))


def submitted_columns(task: Task | None, names: Sequence[str]) -> tuple[str, ...]:
    """Those of these targets that are submitted: all, or those of the task in its order."""
    return tuple(name for name in task.submitted if name in names) if task else in_order_of_submission(names)


def task_of_name(name: str) -> Task | None:
    """The task of this name; None for the empty name."""
    return next((task for task in TASKS if task.name == name), None)
