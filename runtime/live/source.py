"""Where live sound comes from."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError
from ..spec import MAX_CHANNELS, MAX_RATE, MIN_RATE
from .sound_queue import SoundQueue


@dataclass(frozen=True, kw_only=True)
class LiveSource:
    """Sound that is being heard into a queue."""

    name: str  # in the rows' column `file`
    description: str  # for the person
    rate: int  # Hz
    queue: SoundQueue
    patience: float | None = None  # s without sound after which the source counts as broken
    missing: Callable[[], str] = str  # at the end: what was promised and did not come, or ""


def check_layout(subject: str, rate: int, channels: int) -> None:
    """Raises ConfigError for what no file may have, either."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ConfigError(subject, f"{rate} Hz", wanted=f"{MIN_RATE} to {MAX_RATE} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise ConfigError(subject, f"{channels} channels", wanted=f"1 to {MAX_CHANNELS} channels")
