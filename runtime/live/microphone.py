"""Sound of a capture device, by miniaudio, whose wheel needs nothing of the system (the extra `[live]`)."""

import contextlib
import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import ConfigError, MissingExtraError, StoppedError
from ..spec import MAX_CHANNELS
from ..text import counted
from .pcm import samples_from_bytes
from .sound_queue import SoundQueue
from .source import LiveSource, check_layout

if TYPE_CHECKING:
    from miniaudio import Backend

EXTRA: Final = "live"  # what has to be installed
NULL: Final = "null"  # the device that hears silence, and that every machine has
_RATE: Final = 48_000  # Hz, of a device that takes any
_PERIOD: Final = 20  # ms between two blocks, if the device can
_WAITING: Final = 10.0  # s that may wait in the queue
_PATIENCE: Final = 10.0  # s
_PIPE: Final = "or pipe the sound: arecord -f S16_LE -r 48000 | rrtn score - --rate 48000 --drop-late"


class Microphone(NamedTuple):
    """A capture device."""

    name: str
    rate: int  # Hz
    channels: int
    id: Any  # of miniaudio; None: the system's choice


def devices(name: str | None = None) -> list[Microphone]:
    """The capture devices that the system has; of the name `null`, the one that hears silence.

    Raises MissingExtraError, and ConfigError where there is no sound system.
    """
    miniaudio = _miniaudio()
    try:
        found = miniaudio.Devices(_backends(name))
        if found.backend == "Null" and name != NULL:
            return []
        return [_device(captured) for captured in found.get_captures()]
    except miniaudio.MiniaudioError as error:
        raise ConfigError("the sound system", str(error), wanted="one that works", fix=_PIPE) from error


@contextlib.contextmanager
def sound_of_microphone(
    name: str | None = None, *, rate: int | None = None, seconds: float | None = None
) -> Iterator[LiveSource]:
    """What a capture device hears, at its own rate unless `rate` (Hz) is given, for `seconds` or for ever.

    `name` is the device's name, a part of it, or its number in `devices`; None takes the system's choice.
    Raises MissingExtraError, ConfigError where there is no such device, StoppedError where it cannot start.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigError("--seconds", str(seconds), wanted="a finite number above 0")
    device = _chosen(name)
    rate = rate or device.rate
    check_layout(f"--device {device.name}", rate, device.channels)
    queue = SoundQueue(device.channels, limit=round(_WAITING * rate), waits=False)
    miniaudio = _miniaudio()
    with contextlib.ExitStack() as at_end:
        try:
            capture = miniaudio.CaptureDevice(
                miniaudio.SampleFormat.FLOAT32,
                nchannels=device.channels,
                sample_rate=rate,
                buffersize_msec=_PERIOD,
                device_id=device.id,
                backends=_backends(name),
                app_name="rrtn",
            )
            at_end.callback(capture.close)
            capture.start(_taking(queue, device.channels, None if seconds is None else round(seconds * rate)))
        except miniaudio.MiniaudioError as error:
            raise StoppedError(f"--device {device.name}", str(error), fix="rrtn listen --devices") from error
        at_end.callback(queue.close)
        yield LiveSource(
            name=device.name,
            description=f"{device.name}, {rate} Hz, {counted(device.channels, 'channel')}",
            rate=rate,
            queue=queue,
            patience=_PATIENCE,
        )


def _taking(queue: SoundQueue, channels: int, samples: int | None) -> Generator[None, bytes, None]:
    """Takes blocks from miniaudio's thread, up to so many samples."""

    def take() -> Generator[None, bytes, None]:
        while samples is None or queue.heard < samples:
            block = samples_from_bytes((yield), "f32le", channels)
            queue.put(block if samples is None else block[: samples - queue.heard])
        queue.end()
        yield

    taking = take()
    next(taking)  # up to where it waits for the first block
    return taking


def _chosen(name: str | None) -> Microphone:
    found = devices(name)
    if not found:
        raise ConfigError("the microphone", "there is none", wanted="a capture device", fix=_PIPE)
    if name is None and len(found) > 1:
        return Microphone("the default microphone", _RATE, 1, None)  # nobody says which one that is
    if name in (None, NULL):
        return found[0]
    assert name is not None
    if name.isdigit() and 1 <= int(name) <= len(found):
        return found[int(name) - 1]
    matches = [device for device in found if name.casefold() in device.name.casefold()]
    exact = [device for device in found if device.name == name]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    came = f"{len(matches)} devices have that name" if matches else "no such device"
    raise ConfigError(
        f"--device {name}",
        came,
        wanted=" or ".join(f"{number} ({device.name})" for number, device in enumerate(found, 1)),
        fix="rrtn listen --devices",
    )


def _device(captured: dict[str, Any]) -> Microphone:
    formats = captured["formats"] or [{"samplerate": 0, "channels": 0}]
    rate, channels = formats[0]["samplerate"] or _RATE, formats[0]["channels"] or 1
    return Microphone(captured["name"], rate, min(channels, MAX_CHANNELS), captured["id"])


def _backends(name: str | None) -> "list[Backend]":
    return [_miniaudio().Backend.NULL] if name == NULL else []


def _miniaudio() -> Any:
    try:
        import miniaudio
    except ImportError as error:
        raise MissingExtraError.of("miniaudio", EXTRA, "rrtn listen") from error
    return miniaudio
