"""What an export starts from: a run's best checkpoint, and clips of its data.

n clips, N samples, K targets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..runtime.arrays import Float32, waveform_from_samples
from ..runtime.errors import DataError
from ..runtime.progress import Progress
from ..train.checkpoint import CheckpointInfo, load_checkpoint
from ..train.config import Config, config_from_dict
from ..train.data.clip_cache import clip_store
from ..train.evidence.evaluate import network_from_weights
from ..train.method.model import TwinsNetwork
from ..train.plan import data_from_config
from ..train.run_folder import RunFolder
from .parity import Probe, extremes, torch_scores

PROBE_CLIPS: Final = 128  # of the validation split


@dataclass(frozen=True)
class Source:
    """A run's best checkpoint."""

    checkpoint: Path
    info: CheckpointInfo
    config: Config
    network: TwinsNetwork


def source_of_run(run: Path) -> Source:
    """Raises ModelError for a broken checkpoint."""
    checkpoint = RunFolder(run).best
    info, tensors = load_checkpoint(checkpoint, "weights")
    config = config_from_dict(info.config, source=str(checkpoint))
    return Source(checkpoint, info, config, network_from_weights(config, tensors["weights"]))


def probe_of_source(source: Source) -> Probe:
    """Validation clips of the run's data, with PyTorch's scores."""
    spec = source.config.frontend
    validation, ratings, speakers = clips_of_split(source.config, "Val", PROBE_CLIPS)
    clips = np.concatenate([validation, extremes(spec)])
    with Progress("PyTorch's scores", len(clips), "clips") as bar:
        reference = torch_scores(source.network, spec, clips, advance=bar.advance)
    return Probe(clips=clips, reference=reference, ratings=ratings, speakers=speakers)


def clips_of_split(config: Config, name: str, count: int) -> tuple[Float32, Float32, tuple[str, ...]]:
    """Clips [n, N] in [-1, 1] spread over a split of the run's data, their ratings [n, K] and speakers."""
    try:
        split = data_from_config(config).splits[name]
    except DataError as error:
        raise DataError(f"{error} | the parity gate needs the run's clips") from error
    chosen = np.unique(np.linspace(0, len(split.clips) - 1, min(count, len(split.clips))).astype(np.int64))
    store = clip_store([split.clips[i].path for i in chosen], config.frontend, label=f"decode {name} clips")
    indices = np.arange(len(store))
    clips = waveform_from_samples(store.clips(indices, np.zeros_like(indices), config.frontend))
    return clips, split.ratings[chosen], tuple(split.clips[i].speaker for i in chosen)
