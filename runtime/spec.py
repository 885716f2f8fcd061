"""The constants of the audio frontend: they stand here and nowhere else (docs/method.md, points 5 to 7)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from .errors import ConfigError, ModelError
from .text import short

Pad = Literal["silence", "zero_db"]
# What a model takes: log_mel [B, 1, T, M], waveform [B, N], or samples [1, N] of a recording of any length.
InputKind = Literal["logmel", "waveform", "samples"]

MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz, of audio files and of models
MAX_CHANNELS = 8  # of audio files
_MAX_WINDOW = 65_536  # samples
_MAX_FRAMES = 100_000  # a file that claims more would only fill the memory
_MIN_FLOOR = 1e-30  # float32 holds it
_MIN_PEAK, _MAX_PEAK = -60.0, -0.001  # dBFS; a peak of 0 dBFS would overflow int16
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, kw_only=True)
class FrontendSpec:
    """How audio becomes a log-Mel clip [T, M].

    A model carries its spec, in the ONNX metadata and in bundle.json, and scoring reads the spec from
    there, never from these defaults. The defaults are those of PANNs `Cnn14_16k`, on clips of 250 frames.

    Raises ConfigError, which is a ValueError, for a field of the wrong type or out of its range.
    """

    # Fields that were added after the first bundles were published, and what a file without them means.
    absent_means: ClassVar[Mapping[str, Any]] = {"trim": False}

    sampling_rate: int = 16_000  # Hz
    n_fft: int = 512  # samples; also the window, a periodic Hann
    hop: int = 160  # samples
    n_mels: int = 64  # slaney scale, slaney norm
    f_min: float = 50.0  # Hz
    f_max: float = 8_000.0  # Hz
    power_floor: float = 1e-10  # Mel power below it counts as this: -100 dB
    frames: int = 250  # T of one clip
    # What follows a recording that is shorter than a clip: silence, or (zero_db) frames of 0 dB, which
    # are loud. The authors' pipeline probably had the latter (docs/method.md, point 5).
    pad: Pad = "silence"
    peak_dbfs: float = -3.0  # every file's peak is set to this before anything else; silence stays silence
    trim: bool = False  # removes the silence at both ends of a recording (runtime/audio/sound.py)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _typed(field.name, getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, value)
        self._check_transform()
        self._check_mels()
        self._check_clip()

    def _check_transform(self) -> None:
        self._check_range("sampling_rate", MIN_RATE, MAX_RATE, "Hz")
        self._check_range("n_fft", 16, _MAX_WINDOW, "samples")
        if self.n_fft % 2:
            raise _refused("n_fft", self.n_fft, "an even number of samples")
        self._check_range("hop", 1, self.n_fft, "samples (frontend.n_fft)")

    def _check_mels(self) -> None:
        nyquist = self.sampling_rate / 2
        self._check_range("n_mels", 1, self.n_bins, "bands (the bins of the spectrum)")
        self._check_range("f_min", 0, nyquist, "Hz (half of frontend.sampling_rate)")
        self._check_range("f_max", 0, nyquist, "Hz (half of frontend.sampling_rate)")
        if self.f_max <= self.f_min:
            raise _refused("f_max", self.f_max, f"more than frontend.f_min, {self.f_min:g} Hz")
        self._check_range("power_floor", _MIN_FLOOR, 1, "")

    def _check_clip(self) -> None:
        least = self.n_fft // 2 // self.hop + 2  # the STFT reflects half a window at each end of a clip
        self._check_range("frames", least, _MAX_FRAMES, "frames (a clip is longer than half a window)")
        self._check_range("peak_dbfs", _MIN_PEAK, _MAX_PEAK, "dBFS")

    def _check_range(self, name: str, low: float, high: float, unit: str) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # NaN is in no range
            raise _refused(name, value, f"{low:g} to {high:g} {unit}".rstrip())

    @property
    def clip_samples(self) -> int:
        """N of one clip: the centred STFT of so many samples has exactly `frames` frames."""
        return (self.frames - 1) * self.hop

    @property
    def clip_seconds(self) -> float:
        """Length of one clip, in seconds."""
        return self.clip_samples / self.sampling_rate

    @property
    def n_bins(self) -> int:
        """F, the bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def peak(self) -> float:
        """The peak as an amplitude; full scale is 1."""
        return float(10 ** (self.peak_dbfs / 20))

    def frames_of(self, samples: int) -> int:
        """T, the frames of so many samples."""
        return 1 + samples // self.hop

    def to_dict(self) -> dict[str, Any]:
        """The fields for JSON and for model metadata.

        A field of `absent_means` is left out where it has just that value, so that an rrtn which does not
        know the field still reads the file.
        """
        fields = dataclasses.asdict(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in self.absent_means or value != self.absent_means[name]
        }

    @classmethod
    def from_dict(cls, fields: object, *, source: str = "frontend") -> Self:
        """The spec that a model's file carries. `source` is what an error names, best the file.

        Only fields of `absent_means` may be missing; nothing else is guessed. Raises ModelError for a
        field that is missing, unknown, of the wrong type or out of its range.
        """
        try:
            return cls._read(fields, cls.absent_means)
        except ConfigError as error:
            came = f"{error.subject}: {error.came}"
            raise ModelError(source, came, wanted=error.wanted, fix="export the model again") from error

    @classmethod
    def from_settings(cls, section: object, *, source: str) -> Self:
        """The spec that the section `frontend` of a config.toml asks for.

        Fields that the section leaves out have their defaults. But where the section has every field of
        the first version, rrtn wrote it whole: what it lacks was added later, and means what it meant
        then. Raises ConfigError, with `source` as its subject.
        """
        left_out = {field.name: field.default for field in dataclasses.fields(cls)}
        if isinstance(section, Mapping) and section.keys() >= left_out.keys() - cls.absent_means.keys():
            left_out |= cls.absent_means
        try:
            return cls._read(section, left_out)
        except ConfigError as error:
            raise ConfigError(source, f"{error.subject}: {error.came}", wanted=error.wanted) from error

    @classmethod
    def _read(cls, fields: object, left_out: Mapping[str, Any]) -> Self:
        """The one reader: of models with what an absent field means, of settings with the defaults."""
        if not isinstance(fields, Mapping):
            raise ConfigError("frontend", short(fields), wanted="a table of fields")
        known = [field.name for field in dataclasses.fields(cls)]
        values = {**left_out, **fields}
        if unknown := [str(name) for name in values if name not in known]:
            raise ConfigError(_names(unknown), "unknown", wanted=f"one of {', '.join(known)}")
        if missing := [name for name in known if name not in values]:
            raise ConfigError(_names(missing), "missing", wanted="every field of the frontend")
        return cls(**values)


def _typed(name: str, value: object, kind: Any) -> object:
    """The value, once it has its field's type; a whole number is made a float where one is wanted."""
    if choices := get_args(kind):  # of a Literal
        if value not in choices:
            raise _refused(name, value, f"one of {', '.join(choices)}")
        return value
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or isinstance(value, bool) != (kind is bool):
        raise _refused(name, value, _TYPES[kind])
    try:
        return kind(value)
    except OverflowError:  # a whole number that no float holds
        raise _refused(name, value, _TYPES[kind]) from None


def _refused(name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"frontend.{name}", short(value), wanted=wanted)


def _names(fields: list[str]) -> str:
    return ", ".join(f"frontend.{name}" for name in fields)
