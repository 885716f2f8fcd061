"""How good a run is on its validation split, beside what a ridge regression reaches there.

n clips, K targets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runtime.audio import INT16_SCALE
from ..runtime.frontend import clip_of, log_mel
from ..runtime.progress import Progress
from ..runtime.spec import FrontendSpec
from .checkpoint import load_checkpoint
from .clips import ClipStore, clip_store
from .config import Config, config_from_dict
from .data import DataSet, read_data
from .frontend import LogMel
from .metrics import ccc_biased, ccc_challenge
from .model import TwinsNetwork
from .plan import data_folder, network_from_config
from .predict import SplitClips, predict
from .ridge import Float64, mel_statistics, ridge_predictions


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """CCC of each target on the validation split; means over targets are properties."""

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
    store = _store(data_set, "Val", config.frontend)
    clips = SplitClips(store=store, ratings=torch.from_numpy(split.ratings), names=[], spec=config.frontend)
    scores = predict(network, LogMel(config.frontend), clips)
    return Evaluation(
        run=run,
        epoch=info.epoch,
        clips=len(split.clips),
        speakers=len({clip.speaker for clip in split.clips}),
        targets=data_set.targets,
        challenge=ccc_challenge(scores, split.ratings),
        biased=ccc_biased(scores, split.ratings),
        ridge=ridge_ccc(data_set, config.frontend) if ridge else None,
    )


def network_from_weights(config: Config, weights: dict[str, torch.Tensor]) -> TwinsNetwork:
    """The network of a checkpoint, in evaluation mode on the CPU; RUWL's c is left aside."""
    network = network_from_config(config)
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name != "ruwl.c"})
    return network.eval()


def ridge_ccc(data_set: DataSet, spec: FrontendSpec) -> Float64:
    """CCC [K] (challenge) on Val of a ridge regression that was fitted on Train."""
    features = {name: _statistics(_store(data_set, name, spec), spec, label=f"ridge {name}") for name in ("Train", "Val")}
    predicted = ridge_predictions(features["Train"], data_set.splits["Train"].ratings, features["Val"])
    return ccc_challenge(predicted, data_set.splits["Val"].ratings)


def _store(data_set: DataSet, split: str, spec: FrontendSpec) -> ClipStore:
    return clip_store([clip.path for clip in data_set.splits[split].clips], spec, label=f"decode {split}")


def _statistics(store: ClipStore, spec: FrontendSpec, *, label: str) -> Float64:
    with Progress(label, len(store), "clips") as bar:

        def clip_log_mel(index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
            bar.advance()
            return log_mel(clip_of(store.waveform(index).astype(np.float32) / INT16_SCALE, spec), spec)

        return mel_statistics(clip_log_mel(i) for i in range(len(store)))
