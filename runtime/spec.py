"""The one place with the constants of the audio frontend (paper.md points 5 to 8)."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import ModelError

Pad = Literal["silence", "zero_db"]
InputKind = Literal["logmel", "waveform"]  # what a model takes: log_mel [B, 1, T, M] or waveform [B, N]


@dataclass(frozen=True, kw_only=True)
class FrontendSpec:
    """How audio becomes a log-Mel clip. It travels checkpoint -> ONNX metadata -> engine stamp, and is
    read from there.

    Defaults are those of PANNs `Cnn14_16k`, on clips of 250 frames.
    """

    sampling_rate: int = 16_000  # Hz
    n_fft: int = 512  # samples; also the window, a periodic Hann
    hop: int = 160  # samples
    n_mels: int = 64  # slaney scale, slaney norm
    f_min: float = 50.0  # Hz
    f_max: float = 8_000.0  # Hz
    power_floor: float = 1e-10  # Mel power below it counts as this: -100 dB
    frames: int = 250  # T of one clip
    # A recording shorter than a clip goes on as silence, or (zero_db) as frames of 0 dB, which is
    # loud: as the authors' pipeline probably had it (paper.md, point 5).
    pad: Pad = "silence"
    peak_dbfs: float = -3.0  # every file's peak is set to this before anything else; silence stays silence

    def __post_init__(self) -> None:
        if self.pad not in get_args(Pad):
            raise ValueError(f"frontend.pad | {self.pad!r} | expected one of {', '.join(get_args(Pad))}")

    @property
    def clip_samples(self) -> int:
        """N of one clip: the centred STFT of so many samples has exactly `frames` frames."""
        return (self.frames - 1) * self.hop

    @property
    def clip_seconds(self) -> float:
        """Of one clip."""
        return self.clip_samples / self.sampling_rate

    @property
    def n_bins(self) -> int:
        """F, bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def peak(self) -> float:
        """The peak as an amplitude, full scale being 1."""
        return float(10 ** (self.peak_dbfs / 20))

    def frames_of(self, samples: int) -> int:
        """How many frames [T] so many samples have."""
        return 1 + samples // self.hop

    def to_dict(self) -> dict[str, Any]:
        """For JSON and model metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "FrontendSpec":
        """The spec that a model carries.

        Raises ModelError where a field is missing or unknown: nothing is guessed.
        """
        expected = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != expected:
            odd = sorted(fields.keys() ^ expected)
            raise ModelError(
                f"frontend spec | missing or unknown fields: {', '.join(odd)} | export the model again"
            )
        return cls(**fields)
