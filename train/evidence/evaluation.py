"""What a run reaches on a split: scores, ratings, and all that is computed from them.

S seeds, n clips, K rated targets, J class targets, L columns of the scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.arrays import Float64, Int64
from ...runtime.progress import Progress
from ..data.data_set import named_speakers
from ..method.columns import ClassTarget, Scale
from ..method.metrics import (
    Judgement,
    ccc_biased,
    ccc_challenge,
    confusion,
    mae,
    metric_of,
    numbers_of_one_hot,
    pearson,
    uar_of_tables,
)
from ..method.tasks import Metric, Task
from .groups import GroupReport
from .predictions import Predictions, scores_of_seeds
from .significance import (
    Comparison,
    ccc_interval,
    classes_have_evidence,
    have_evidence,
    no_evidence_of,
    or_none,
    uar_interval,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A run's best checkpoint on a split, or a cross-validation on all of its clips.

    Of a folder of seeds, it is the best checkpoint of each; metrics are then means over the seeds.
    Columns [K + 1] are the rated targets and then their mean. Each target is judged on the clips that
    have it. Scores and ratings are in the units of their scales.
    """

    run: Path
    epochs: tuple[int, ...]  # [S]
    seeds: tuple[Predictions, ...]  # [S]
    ridge: Float64 | None  # [K] CCC (challenge) of the baseline, fitted on the last seed's training clips
    synthetic: bool = False  # the voices are: the scores say nothing about real ones
    split: str = "Val"
    folds: int = 0  # of a cross-validation; 0: the clips were held out of one run
    chosen_on: bool = True  # the epoch was chosen on these clips
    data_changed: bool = False  # since the run was trained on it: any clip may be one that it learned from
    ridge_of_others: bool = False  # it was fitted on the Train of other data than the run's
    ridge_lacks_train: bool = False  # it was asked for, and other data have too few rated clips in Train
    compared: dict[str, Comparison] = field(default_factory=dict)  # folder of the other run -> comparison
    # What to know of a run's figures, by its folder: clips that it may have learned from, epochs to come.
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[GroupReport, ...] = ()  # of each --by
    scales: tuple[Scale, ...] = ()  # [K]; empty where all are 0 to 1
    task: Task | None = None

    @property
    def epoch(self) -> int:
        """The best epoch of the first seed."""
        return self.epochs[0]

    @property
    def predictions(self) -> Predictions:
        """The predictions of the first seed."""
        return self.seeds[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the K rated targets."""
        return self.predictions.columns.targets

    @property
    def classes(self) -> tuple[ClassTarget, ...]:
        """The J class targets."""
        return self.predictions.classes

    @cached_property
    def _rated(self) -> tuple[Predictions, ...]:
        """The rated columns of each seed."""
        return tuple(seed.of_ratings() for seed in self.seeds)

    @property
    def counts(self) -> tuple[int, ...]:
        """[K]: the clips that are rated for each target."""
        return tuple((~np.isnan(self._rated[0].rated)).sum(0).tolist())

    @property
    def clips(self) -> int:
        """The number of clips, n."""
        return len(self.predictions.file_ids)

    @property
    def speakers(self) -> int:
        """The number of speakers who are named."""
        return named_speakers(self.predictions.speakers)

    @property
    def no_evidence(self) -> str:
        """Why there are no intervals, in words; "" where there are."""
        return no_evidence_of(self.predictions.speakers)

    @property
    def challenge(self) -> Float64:
        """CCC [K]: variances over n - 1, covariance over n."""
        return _mean([one.ccc for one in self._judgements])

    @property
    def biased(self) -> Float64:
        """CCC [K]: all moments over n."""
        return _mean([ccc_biased(seed.scores, seed.rated) for seed in self._rated])

    @property
    def pearson(self) -> Float64:
        """Correlation [K]. A wrong scale or level does not lower it. 0 where one side is constant."""
        return _mean([pearson(seed.scores, seed.rated) for seed in self._rated])

    @property
    def mae(self) -> Float64:
        """Mean absolute error [K]."""
        return _mean([one.mae for one in self._judgements])

    @cached_property
    def _confusions(self) -> tuple[tuple[Int64, ...], ...]:
        """[S][J]: clips [C, C] by their class and by the likeliest one."""
        return tuple(
            tuple(
                confusion(seed.scores[:, group], numbers_of_one_hot(seed.rated[:, group]))
                for group in seed.columns.groups
            )
            for seed in self.seeds
        )

    @property
    def tables(self) -> tuple[Int64, ...]:
        """[J]: clips [C, C] by their class and by the likeliest one, summed over the seeds."""
        return tuple(np.sum(of_seeds, 0) for of_seeds in zip(*self._confusions, strict=True))

    @property
    def uar(self) -> Float64:
        """Unweighted average recall [J]; NaN where no clip has a class."""
        return _mean([one.uar for one in self._judgements])

    @cached_property
    def uar_intervals(self) -> tuple[tuple[float, float], ...] | None:
        """[J] 95% intervals (low, high) of the recalls; None where there are too few speakers.

        NaN for a class target of which too few speakers have one of the classes.
        """
        if self.no_evidence:
            return None
        scores, predictions = scores_of_seeds(self.seeds), self.predictions
        found = []
        for group in predictions.columns.groups:
            classes = numbers_of_one_hot(predictions.rated[:, group])
            if classes_have_evidence(classes, predictions.speakers):
                found.append(uar_interval(scores[..., group], classes, predictions.speakers))
            else:
                found.append((math.nan, math.nan))
        return tuple(found)

    @property
    def metric(self) -> Metric:
        """What the epoch was chosen by."""
        return metric_of(self.predictions.columns, self.task)

    @property
    def score(self) -> float:
        """That metric here; the mean over the seeds. NaN where a target that it judges is `unlabelled`."""
        return float(np.mean([one.score(self.task) for one in self._judgements]))

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The targets that too few clips have."""
        return self.predictions.unlabelled

    @property
    def parts(self) -> dict[str, float]:
        """What S_MTL is made of, means over the seeds; empty for another metric."""
        if self.metric != "s_mtl" or self.task is None:
            return {}
        of_seeds = [one.parts_of_s_mtl(self.task) for one in self._judgements]
        return {name: float(np.mean([parts[name] for parts in of_seeds])) for name in of_seeds[0]}

    @property
    def has_one_scale(self) -> bool:
        """Whether errors of several targets have a mean: all are on the same scale."""
        return len(set(self.scales)) < 2

    @cached_property
    def _judgements(self) -> tuple[Judgement, ...]:
        """[S]."""
        return tuple(
            Judgement(
                columns=seed.columns,
                ccc=ccc_challenge(rated.scores, rated.rated),
                mae=mae(rated.scores, rated.rated),
                uar=uar_of_tables(tables),
            )
            for seed, rated, tables in zip(self.seeds, self._rated, self._confusions, strict=True)
        )

    @cached_property
    def interval(self) -> tuple[Float64, Float64] | None:
        """The 95% interval of the challenge CCC: low and high, [K + 1] each.

        It draws speakers, and seeds where there are several. None where there are too few speakers for it
        to mean something; NaN for a target that too few have rated, and then for the mean.
        """
        if self.no_evidence or not self.targets:
            return None
        rated, speakers = self._rated[0].rated, self.predictions.speakers
        with Progress("resample speakers"):
            low, high = ccc_interval(scores_of_seeds(self._rated), rated, speakers)
        is_evidence = have_evidence(rated, speakers)
        return np.where(is_evidence, low, np.nan), np.where(is_evidence, high, np.nan)

    @cached_property
    def figures(self) -> dict[str, Float64]:
        """Each measure [K + 1], by its name in --json: of the targets, and the mean over those that have it.

        Of errors in several units there is no mean: NaN.
        """
        measures = {"ccc": self.challenge, "ccc_biased": self.biased}
        measures |= {"pearson": self.pearson, "mae": self.mae}
        if self.ridge is not None:
            measures["ridge_ccc"] = self.ridge
        means = {name: mean_of_known(values) for name, values in measures.items()}
        if not self.has_one_scale:
            means["mae"] = math.nan
        return {name: np.append(values, means[name]) for name, values in measures.items()}

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "run": str(self.run),
            "epoch": self.epoch,
            "split": self.split,
            "clips": self.clips,
            "speakers": self.speakers,
            "synthetic": self.synthetic,
            **({"mean": self._column(-1)} if self.targets else {}),
            "per_target": {target: self._column(k) for k, target in enumerate(self.targets)},
            "compared": {run: comparison.to_dict(self.targets) for run, comparison in self.compared.items()},
            **self._of_labels(),
            **({"folds": self.folds} if self.folds else {}),
            **({"data_changed": True} if self.data_changed else {}),
            **({"remarks": self.remarks} if self.remarks else {}),
            **({"groups": [group.to_dict() for group in self.groups]} if self.groups else {}),
        } | ({"epochs_of_seeds": list(self.epochs)} if len(self.seeds) > 1 else {})

    def _column(self, k: int) -> dict[str, float | None]:
        """What `to_dict` says of a target; -1: of their mean."""
        low, high = (or_none(end[k]) for end in self.interval) if self.interval else (None, None)
        figures = {name: or_none(values[k]) for name, values in self.figures.items()}
        return {**figures, "ccc_low": low, "ccc_high": high}

    def _of_labels(self) -> dict[str, Any]:
        """What scales, blanks, classes and tasks add to `to_dict`; empty without them."""
        added: dict[str, Any] = {}
        if self.scales:
            named = zip(self.targets, self.scales, strict=True)
            added["scales"] = {name: [scale.low, scale.high] for name, scale in named}
        if any(count < self.clips for count in self.counts):
            added["rated"] = dict(zip(self.targets, self.counts, strict=True))
        if self.classes:
            added["classes"] = {target.name: self._of_class(j) for j, target in enumerate(self.classes)}
        if self.metric != "ccc":
            added |= {"metric": self.metric, "score": or_none(self.score)}
        if self.parts:
            added["score_parts"] = {name: or_none(part) for name, part in self.parts.items()}
        return added

    def _of_class(self, j: int) -> dict[str, Any]:
        low, high = map(or_none, self.uar_intervals[j]) if self.uar_intervals else (None, None)
        return {
            "uar": or_none(self.uar[j]),
            "uar_low": low,
            "uar_high": high,
            "classes": list(self.classes[j].classes),
            "confusion": self.tables[j].tolist(),
        }


def mean_of_known(values: Float64) -> float:
    """The mean over the targets [K] that have a value; NaN where none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _mean(of_seeds: Sequence[Float64]) -> Float64:
    return np.asarray(np.mean(of_seeds, axis=0))
