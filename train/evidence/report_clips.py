"""The best and the worst predicted clips of a run, to look at and listen to on its page.

n clips.
"""

import base64
from typing import Final

import numpy as np
import torch

from ...runtime.arrays import Float64, Int16
from ...runtime.audio.wav_file import wav_bytes
from ...runtime.frontend import mel_edges
from ..config import Config
from ..data.device_clips import SplitClips, split_clips
from ..method.columns import Columns, Scale
from ..method.frontend import LogMel
from ..method.views import mask_draws, masked_view
from ..plan import data_from_config
from ..predict import mel_mean
from .charts import spectrogram
from .evaluation import Evaluation
from .predictions import Predictions
from .report_page import Rating, ShownClip

CLIPS: Final = 4  # shown: the best and the worst two by their error


def clips_of_evaluation(config: Config, evaluation: Evaluation) -> list[ShownClip]:
    """The best predicted ones first, the worst one last."""
    split = split_clips(data_from_config(config), "Val", config.frontend, torch.device("cpu"))
    errors = errors_of_clips(evaluation.predictions, config.data.columns)
    order = np.argsort(errors)[: int((~np.isnan(errors)).sum())]
    best = order[: CLIPS // 2].tolist()
    worst = [sample for sample in order[-(CLIPS // 2) :].tolist() if sample not in best]
    fill = mel_mean(split, LogMel(config.frontend))
    shown = [(sample, "best predicted") for sample in best] + [
        (sample, "worst predicted") for sample in worst
    ]
    return [
        _clip(config, evaluation, split, fill, sample, rank, float(errors[sample])) for sample, rank in shown
    ]


def errors_of_clips(predictions: Predictions, columns: Columns) -> Float64:
    """[n]: how far each clip's predictions are from its labels; NaN where it has none of them.

    The mean absolute error over the rated targets, as a share of their scales; without rated targets, one
    minus the probability of the labelled class, the mean over the class targets.
    """
    count = len(columns.targets)
    if count:
        widths = [scale.width for scale in columns.scales]
        errors = np.abs(predictions.scores - predictions.rated)[:, :count] / widths
    else:
        of_labelled = predictions.scores * predictions.rated
        errors = np.stack([1 - of_labelled[:, group].sum(1) for group in columns.groups], axis=1)
    known = ~np.isnan(errors)
    means = np.nan_to_num(errors).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), means, np.nan)


def rule_of_errors(columns: Columns) -> str:
    """What `errors_of_clips` are, in words."""
    if not columns.targets:
        return "one minus the probability of the labelled class"
    of_scales = ", as a share of their scales" if columns.is_scaled else ""
    return f"the mean absolute error over the {'rated ' if columns.classes else ''}targets{of_scales}"


def _clip(
    config: Config,
    evaluation: Evaluation,
    split: SplitClips,
    fill: torch.Tensor,
    sample: int,
    rank: str,
    error: float,
) -> ShownClip:
    index = np.array([sample])
    clean = LogMel(config.frontend)(*split.clips(index, np.zeros_like(index)))
    masked = masked_view(clean, fill, mask_draws(config.seed, 0, index, config.augment), config.augment)
    seconds, hertz = config.frontend.clip_seconds, mel_edges(config.frontend)[1:-1]
    predictions = evaluation.predictions
    return ShownClip(
        name=predictions.file_ids[sample],
        rank=rank,
        error=error,
        sound=_data_url(split.store.waveform(sample), config.frontend.sampling_rate),
        clean=spectrogram(clean[0, 0].numpy(), seconds=seconds, hertz=hertz),
        masked=spectrogram(masked[0, 0].numpy(), seconds=seconds, hertz=hertz)
        if config.model.has_second_view
        else None,
        ratings=[
            _rating(label, span, float(predictions.rated[sample, k]), float(predictions.scores[sample, k]))
            for k, (label, span) in enumerate(
                zip(predictions.targets, config.data.columns.spans, strict=True)
            )
        ],
    )


def _rating(label: str, span: Scale, rated: float, predicted: float) -> Rating:
    is_rated = not np.isnan(rated)
    return Rating(
        label,
        f"{rated:.2f}" if is_rated else "-",
        f"{predicted:.2f}",
        (rated - span.low) / span.width if is_rated else 0.0,
        (predicted - span.low) / span.width,
    )


def _data_url(samples: Int16, rate: int) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(wav_bytes(samples, rate)).decode()}"
