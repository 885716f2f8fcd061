"""How good a run is on its validation split, beside what a ridge regression reaches there.

n clips, K targets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..runtime.audio import waveform_from_samples
from ..runtime.frontend import Float32, clip_log_mel
from ..runtime.progress import Progress
from .checkpoint import load_checkpoint
from .config import Config, config_from_dict
from .data import DataSet, read_data
from .frontend import LogMel
from .metrics import ccc_biased, ccc_challenge
from .model import TwinsNetwork
from .plan import data_folder, network_from_config
from .predict import predict
from .ridge import Float64, mel_statistics, ridge_predictions
from .splits import SplitClips, split_clips


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """CCC of each target on the validation split."""

    run: Path
    epoch: int
    clips: int
    speakers: int
    targets: tuple[str, ...]
    challenge: Float64  # [K] variances over n - 1, covariance over n
    biased: Float64  # [K] all moments over n
    ridge: Float64 | None  # [K] challenge metric of the baseline

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        columns = {"ccc": self.challenge, "ccc_biased": self.biased, "ridge_ccc": self.ridge}
        shown = {name: values for name, values in columns.items() if values is not None}
        return {
            "run": str(self.run),
            "epoch": self.epoch,
            "split": "Val",
            "clips": self.clips,
            "speakers": self.speakers,
            "mean": {name: float(values.mean()) for name, values in shown.items()},
            "per_target": {
                target: {name: float(values[k]) for name, values in shown.items()} for k, target in enumerate(self.targets)
            },
        }


def evaluate(run: Path, *, data: Path | None = None, ridge: bool = True) -> Evaluation:
    """The run's best checkpoint on the Val split of its data, or of `data` with the same targets.

    Raises ModelError for a broken checkpoint, DataError for the data.
    """
    info, tensors = load_checkpoint(run / "checkpoints/best", "weights")
    config = config_from_dict(info.config, source=str(run))
    network = network_from_weights(config, tensors["weights"])
    data_set = read_data(data or data_folder(config), info.labels)
    split = data_set.splits["Val"]
    validation = split_clips(data_set, "Val", config.frontend, torch.device("cpu"))
    with Progress("validate", len(validation), "clips") as bar:
        scores = predict(network, LogMel(config.frontend), validation, crop=config.eval.crop, advance=bar.advance)
    return Evaluation(
        run=run,
        epoch=info.epoch,
        clips=len(split.clips),
        speakers=len({clip.speaker for clip in split.clips}),
        targets=data_set.targets,
        challenge=ccc_challenge(scores, split.ratings),
        biased=ccc_biased(scores, split.ratings),
        ridge=_ridge_ccc(data_set, validation) if ridge else None,
    )


def network_from_weights(config: Config, weights: dict[str, torch.Tensor]) -> TwinsNetwork:
    """The network of a checkpoint, in evaluation mode on the CPU; RUWL's c is left aside."""
    network = network_from_config(config)
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name != "ruwl.c"})
    return network.eval()


def _ridge_ccc(data_set: DataSet, validation: SplitClips) -> Float64:
    """CCC [K] (challenge) on Val of a ridge regression that was fitted on Train."""
    training = split_clips(data_set, "Train", validation.spec, torch.device("cpu"))
    features = (_statistics(training, label="ridge Train"), _statistics(validation, label="ridge Val"))
    predicted = ridge_predictions(features[0], training.ratings.numpy(), features[1])
    return ccc_challenge(predicted, validation.ratings.numpy())


def _statistics(split: SplitClips, *, label: str) -> Float64:
    with Progress(label, len(split.store), "clips") as bar:

        def features(index: int) -> Float32:
            bar.advance()
            return clip_log_mel(waveform_from_samples(split.store.waveform(index)), split.spec)

        return mel_statistics(features(i) for i in range(len(split)))
