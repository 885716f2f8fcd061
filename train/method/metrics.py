"""What a model is judged by: concordance, as the challenge reports it and as the loss computes it; recall.

A rating or a class that is NaN is missing: each target is judged on the clips that have it. n clips, K
rated targets, C classes of a class target.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float64, Int64
from .columns import Columns
from .tasks import Metric, Task


def ccc_challenge(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K], as the ExVo challenge's script computes it.

    Variances are over n - 1, the covariance over n. A target has a CCC of 0 if neither side varies and
    the means agree: nothing was predicted.
    """
    return _of_rated(lambda x, y: _ccc(x, y, variance_over=len(x) - 1), predicted, rated)


def ccc_biased(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K], all moments over n: 1 - the loss (Eq. 1)."""
    return _of_rated(lambda x, y: _ccc(x, y, variance_over=len(x)), predicted, rated)


def pearson(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> correlation [K], which no wrong scale or level lowers; 0 where one side is constant."""
    return _of_rated(_pearson, predicted, rated)


def mae(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> mean absolute error [K]."""
    return _of_rated(lambda x, y: np.asarray(np.abs(x - y).mean(0)), predicted, rated)


def confusion(probabilities: npt.ArrayLike, classes: npt.ArrayLike) -> Int64:
    """Probabilities [n, C], numbers of classes [n] -> clips [C, C] by class and by the likeliest class."""
    p, known = np.asarray(probabilities), np.asarray(classes)
    has_one = ~np.isnan(known)
    counts = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(counts, (known[has_one].astype(np.int64), p[has_one].argmax(1)), 1)
    return counts


def uar_of_confusion(counts: npt.ArrayLike) -> Float64:
    """Clips [..., C, C] -> unweighted average recall [...], over the classes that any clip has.

    scikit-learn's recall_score(average="macro"), which the challenges' scripts call.
    """
    counted = np.asarray(counts, np.float64)
    clips = counted.sum(-1)  # [..., C] of each class
    recall = np.diagonal(counted, axis1=-2, axis2=-1) / np.maximum(clips, 1)
    return np.asarray(recall.sum(-1) / np.maximum((clips > 0).sum(-1), 1))


def uar_of_tables(tables: Iterable[Int64]) -> Float64:
    """J tables [C, C] of clips -> their unweighted average recalls [J]; NaN where no clip has a class."""
    return np.array([float(uar_of_confusion(table)) if table.any() else math.nan for table in tables])


def s_mtl(ccc: float, uar: float, error: float) -> float:
    """The ExVo multi-task score: the harmonic mean of CCC, UAR and 1 / MAE; 0 where one is not above 0.

    NaN where one of them is not known.
    """
    if math.isnan(ccc + uar + error):
        return math.nan
    if min(ccc, uar) <= 0:
        return 0.0
    return 3 / (1 / ccc + 1 / uar + error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Scores against labels, target by target."""

    columns: Columns
    ccc: Float64  # [K], the challenge's
    mae: Float64  # [K] in the units of the scales
    uar: Float64  # [J]

    @property
    def not_finite(self) -> list[str]:
        """The measures of which some figure is no number."""
        measures = {"CCC": self.ccc, "MAE": self.mae, "UAR": self.uar}
        return [name for name, figures in measures.items() if not np.isfinite(figures).all()]

    def score(self, task: Task | None) -> float:
        """What chooses the best epoch, and is the highest there (`metric_of`)."""
        match metric_of(self.columns, task):
            case "uar":
                return float(self.uar.mean())
            case "s_mtl":
                assert task is not None
                return s_mtl(**self.parts_of_s_mtl(task))
            case "ccc":
                return float(self.ccc.mean())
        return float(np.concatenate([self.ccc, self.uar]).mean())

    def parts_of_s_mtl(self, task: Task) -> dict[str, float]:
        """The arguments of `s_mtl`: CCC of the other targets than those judged by error, UAR, and MAE."""
        by_error = np.isin(self.columns.targets, task.by_error)
        return {
            "ccc": float(self.ccc[~by_error].mean()),
            "uar": float(self.uar.mean()),
            "error": float(self.mae[by_error].mean()),
        }

    def to_record(self, task: Task | None) -> dict[str, Any]:
        """The part of a record of history.jsonl that says how good an epoch is."""
        record: dict[str, Any] = {}
        if len(self.ccc):
            of_targets = dict(zip(self.columns.targets, self.ccc.tolist(), strict=True))
            record |= {"val_ccc": float(self.ccc.mean()), "val_ccc_per_target": of_targets}
        if len(self.uar):
            names = [target.name for target in self.columns.classes]
            of_targets = dict(zip(names, self.uar.tolist(), strict=True))
            record |= {"val_uar": float(self.uar.mean()), "val_uar_per_target": of_targets}
        if (metric := metric_of(self.columns, task)) != "ccc":
            record |= {"val_metric": metric, "val_score": self.score(task)}
        return record


def metric_of(columns: Columns, task: Task | None) -> Metric:
    """The task's metric; else mean CCC, mean UAR, or the mean over both kinds of targets."""
    if task is not None:
        return task.metric
    if not columns.classes:
        return "ccc"
    return "ccc_uar" if columns.targets else "uar"


def judgement(columns: Columns, scores: npt.ArrayLike, labels: npt.ArrayLike) -> Judgement:
    """Scores [n, L] in 0 to 1 and labels [n, K + J] as training has them -> how good the scores are."""
    x, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    n = len(columns.targets)
    tables = [confusion(x[:, group], y[:, n + j]) for j, group in enumerate(columns.groups)]
    return Judgement(
        columns=columns,
        ccc=ccc_challenge(x[:, :n], y[:, :n]),
        mae=mae(x[:, :n], y[:, :n]) * [scale.width for scale in columns.scales],
        uar=uar_of_tables(tables),
    )


def in_units(scores: npt.ArrayLike, columns: Columns) -> Float64:
    """Scores [..., L] in 0 to 1 -> in the units of the scales, in float64."""
    low, width = np.array([[scale.low, scale.width] for scale in columns.spans]).T
    return np.asarray(np.asarray(scores, np.float64) * width + low)


def numbers_of_one_hot(one_hot: npt.ArrayLike) -> Float64:
    """[n, C] of 0 and 1 -> the number of each clip's class [n]; NaN where a row has none."""
    marks = np.asarray(one_hot, np.float64)
    return np.where(np.isnan(marks).any(1), np.nan, np.nan_to_num(marks).argmax(1))


def _of_rated(
    metric: Callable[[Float64, Float64], Float64], predicted: npt.ArrayLike, rated: npt.ArrayLike
) -> Float64:
    """The metric of all targets at once, or target by target where some have blanks."""
    x, y = np.asarray(predicted, np.float64), np.asarray(rated, np.float64)
    is_rated = ~np.isnan(y)
    if is_rated.all() and len(y) > 1:
        return metric(x, y)
    return np.array([_of_target(metric, x[rows, k], y[rows, k]) for k, rows in enumerate(is_rated.T)])


def _of_target(metric: Callable[[Float64, Float64], Float64], x: Float64, y: Float64) -> float:
    """NaN where fewer than two clips are rated."""
    return float(metric(x[:, None], y[:, None])[0]) if len(y) > 1 else float("nan")


def _ccc(x: Float64, y: Float64, *, variance_over: int) -> Float64:
    x, y = x - y[0], y - y[0]  # moments stay, and a constant y becomes exactly 0
    m_x, m_y = x.mean(0), y.mean(0)
    s_xx = np.square(x - m_x).sum(0) / variance_over
    s_yy = np.square(y - m_y).sum(0) / variance_over
    s_xy = ((x - m_x) * (y - m_y)).mean(0)
    spread = s_xx + s_yy + np.square(m_x - m_y)
    ccc: Float64 = 2 * s_xy / np.where(spread == 0, 1, spread)
    return ccc


def _pearson(x: Float64, y: Float64) -> Float64:
    x, y = (side - side[0] for side in (x, y))  # as in _ccc
    x, y = (side - side.mean(0) for side in (x, y))
    norms = np.sqrt(np.square(x).sum(0) * np.square(y).sum(0))
    return np.asarray((x * y).sum(0) / np.where(norms == 0, 1, norms))
