"""What an export starts from: a run's best checkpoint, and clips of its data.

n clips, N samples, L columns of the scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ..runtime.arrays import Float32, Int64, waveform_from_samples
from ..runtime.audio.reader import audio_from_array
from ..runtime.bundle import LabelMeaning
from ..runtime.errors import DataError
from ..runtime.frontend import clip_of
from ..runtime.probe_sounds import extremes
from ..runtime.progress import Progress
from ..runtime.system.files import sha256_of
from ..train.checkpoint import POINTER, CheckpointInfo
from ..train.config import Config
from ..train.data.clip_cache import clip_store
from ..train.data.data_set import DataSet
from ..train.evidence.best_checkpoint import best_of_run
from ..train.method.columns import Columns
from ..train.method.model import TwinsNetwork
from ..train.method.tasks import submitted_columns, task_of_name
from ..train.plan import data_from_config
from ..train.run_folder import RunFolder
from .parity import Probe, Recordings, torch_scores

_PROBE_CLIPS: Final = 128  # of the validation split
_FEWEST_OF_A_COLUMN: Final = 8  # clips with a label of it, where the split has them
_CALIBRATION_CLIPS: Final = 128  # of the training split


@dataclass(frozen=True)
class Source:
    """A run's best checkpoint. Its data are read once, when they are first needed."""

    checkpoint: Path  # the folder
    digest: str  # SHA-256 of its checkpoint.json
    info: CheckpointInfo
    config: Config
    network: TwinsNetwork

    @property
    def columns(self) -> Columns:
        """The columns of the scores."""
        return self.config.data.columns

    @property
    def meaning(self) -> LabelMeaning | None:
        """What bundle.json says about the labels; None where all are ratings in 0 to 1."""
        columns, task = self.columns, task_of_name(self.config.data.task)
        if not (columns.is_scaled or columns.classes):
            return None
        return LabelMeaning(
            scales={name: (s.low, s.high) for name, s in zip(columns.targets, columns.scales, strict=True)},
            classes={target.name: target.classes for target in columns.classes},
            submitted=submitted_columns(task, columns.names),
        )

    @cached_property
    def data(self) -> DataSet:
        """The run's data set. Raises DataError."""
        try:
            return data_from_config(self.config, self.checkpoint.parents[1])
        except DataError as error:
            needs = "an export needs the run's clips, to compare its scores with PyTorch's"
            fix = f"{error.fix}; {needs}" if error.fix else needs
            raise DataError(error.subject, error.came, wanted=error.wanted, fix=fix) from error

    @cached_property
    def training_sounds(self) -> list[Float32]:
        """n recordings in [-1, 1], of N samples at most, for the calibration of int8."""
        clips = _clips_of_split(self, "Train", _CALIBRATION_CLIPS)
        return [clip[:length] for clip, length in zip(clips.waveforms, clips.lengths, strict=True)]


def source_of_run(run: Path) -> Source:
    """The run's best checkpoint. Raises ModelError where it is broken.

    A training may replace it meanwhile: then it is read again.
    """
    folder = RunFolder(run).best
    while True:
        digest = _digest(folder)
        source = Source(folder, digest, *best_of_run(run))
        if _digest(folder) == digest:
            return source


def _digest(checkpoint: Path) -> str:
    pointer = checkpoint / POINTER
    return sha256_of(pointer) if pointer.is_file() else ""


def probe_of_source(source: Source, *, recordings: bool = False) -> Probe:
    """Validation clips of the run's data, with PyTorch's scores; with `recordings` also those.

    Raises DataError.
    """
    validation = _clips_of_split(source, "Val", _PROBE_CLIPS)
    others = extremes(source.config.frontend)
    clips = np.concatenate([validation.waveforms, others])
    lengths = np.concatenate([validation.lengths, np.full(len(others), clips.shape[1])])
    probe = Probe(
        clips=clips,
        lengths=lengths,
        reference=_reference(source, clips, lengths),
        ratings=validation.rated,
        speakers=validation.speakers,
        columns=source.columns,
    )
    return replace(probe, of_recordings=_recordings_of_probe(source, probe)) if recordings else probe


def _recordings_of_probe(source: Source, probe: Probe) -> Recordings:
    spec = source.config.frontend
    recordings = tuple(_recordings(probe))
    heard = [audio_from_array(recording, spec.sampling_rate, spec).waveform for recording in recordings]
    clips = np.array([clip_of(waveform, spec) for waveform in heard])
    lengths = np.array([len(waveform) for waveform in heard])
    return Recordings(
        recordings=recordings,
        clips=clips,
        lengths=lengths,
        reference=_reference(source, clips, lengths),
        ratings=probe.ratings,
        speakers=probe.speakers,
        columns=probe.columns,
    )


def _recordings(probe: Probe) -> Iterator[Float32]:
    """The sounds as they are, softer, or with more behind them; of the extremes, two are cut short."""
    silence, click, noise, square = probe.sounds[-4:]
    for number, sound in enumerate(probe.sounds[:-4]):
        as_is, softer, longer = sound, sound * np.float32(0.003), np.concatenate([sound, sound[::2]])
        yield (as_is, softer, longer)[number % 3]
    yield from (silence, click[: len(click) // 2 + 1], np.concatenate([noise / 2, noise]), square[:1000])


def _reference(source: Source, clips: Float32, lengths: Int64) -> Float32:
    with Progress("PyTorch's scores", len(clips), "clips") as bar:
        return torch_scores(
            source.network,
            source.config.frontend,
            clips,
            lengths=lengths,
            columns=source.columns,
            advance=bar.advance,
        )


class _RatedClips(NamedTuple):
    waveforms: Float32  # [n, N] in [-1, 1]
    lengths: Int64  # [n]: the samples of each recording, N at most
    rated: Float32  # [n, L] in the units of the scales
    speakers: tuple[str, ...]  # n


def _spread(rows: Int64, count: int) -> Int64:
    """At most `count` of the rows, at equal distances."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def _clips_of_split(source: Source, name: str, count: int) -> _RatedClips:
    """`count` clips of a split of the run's data, spread evenly: those with a label before others.

    Fewer where the split has fewer; and a few more of each column that so few of them have that it would
    hardly be compared.
    """
    split, spec = source.data.splits[name], source.config.frontend
    known = ~np.isnan(split.rated)
    labelled = _spread(np.flatnonzero(known.any(axis=1)), count)
    others = _spread(np.flatnonzero(~known.any(axis=1)), count - len(labelled))
    rare = [column for column in known.T if column[labelled].sum() < _FEWEST_OF_A_COLUMN]
    chosen = np.unique(
        np.concatenate(
            [labelled, others, *(_spread(np.flatnonzero(column), _FEWEST_OF_A_COLUMN) for column in rare)]
        )
    )
    paths = [split.clips[i].path for i in chosen]
    store = clip_store(paths, spec, label=f"decode {name} clips", channel=source.data.channel)
    indices = np.arange(len(store))
    waveforms = waveform_from_samples(store.clips(indices, np.zeros_like(indices), spec))
    rated = split.rated[chosen].astype(np.float32)
    lengths = np.minimum(store.lengths, spec.clip_samples).astype(np.int64)
    return _RatedClips(waveforms, lengths, rated, tuple(split.clips[i].speaker for i in chosen))
