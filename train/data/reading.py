"""A data set as the settings of [data] ask for it: its places, its labels, and a fold of it."""

from dataclasses import replace
from pathlib import Path

from ...runtime.errors import ConfigError
from ...runtime.text import short
from ..config import DataConfig
from ..method.columns import classes_of_labels
from ..method.tasks import task_of_name
from .data_set import DataSet, read_data
from .folds import fold_of_data
from .places import DataPlaces, places_of_config
from .table_text import TextTable
from .targets import LabelChoice


def data_of_settings(folder: Path, settings: DataConfig, text: TextTable | None = None) -> DataSet:
    """The data set in `folder`, or that fold of it which the settings name. Raises DataError, ConfigError.

    `text` is its table where that is read already.
    """
    targets, labels = label_settings(settings)
    places = places_of_config(settings)
    data = read_data(
        folder,
        targets,
        channel=settings.channel or None,
        labels=labels,
        places=None if places == DataPlaces() else places,  # None: what the folder's own settings say
        text=text,
        pooled=bool(settings.fold),
    )
    return fold_of_data(data, settings.fold) if settings.fold else data


def check_labels(settings: DataConfig) -> None:
    """Raises ConfigError for classes of no class target, and for targets that lack some of the task's.

    Asked before training alone: `label_settings` also reads finished runs, which may have such settings.
    """
    targets, labels = label_settings(settings)
    of_targets = [label for name in labels.class_targets for label in classes_of_labels(name, labels.classes)]
    if len(of_targets) < len(labels.classes):
        wanted = f"NAME=CLASS of {', '.join(labels.class_targets) or 'a --class-target'}"
        raise ConfigError("data.classes", short(list(labels.classes)), wanted=wanted)
    task = task_of_name(settings.task)
    submitted = task.submitted if task else ()
    if missing := [name for name in submitted if name not in (*targets, *labels.class_targets)]:
        raise ConfigError(
            "--targets" if task and missing[0] in task.targets else "--class-target",
            f"without {', '.join(missing)}",
            wanted=f"all that --task {settings.task} submits and is judged by",
            fix='name them, too, or take no task: --task "" (data.task)',
        )


def labels_of_settings(settings: DataConfig, *, learned: bool = False) -> LabelChoice:
    """What the settings say about labels. `learned`: a run has learned these targets on these scales."""
    return LabelChoice(
        scale=settings.scale,
        class_targets=settings.class_targets,
        classes=settings.classes,
        only_named=learned,
        learned=learned,
    )


def label_settings(settings: DataConfig) -> tuple[tuple[str, ...], LabelChoice]:
    """The rated columns that are asked for, by name or by the task, and the rest about labels."""
    task, own = task_of_name(settings.task), labels_of_settings(settings)
    if task is None:
        return settings.targets, own
    choice = replace(
        own,
        scale=own.scale or task.scale,
        class_targets=own.class_targets or task.class_targets,
        only_named=True,
    )
    return settings.targets or task.targets, choice
