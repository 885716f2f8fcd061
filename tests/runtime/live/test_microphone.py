"""A capture device by miniaudio: the null device, which every machine has, and those that are not there."""

import sys

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError, MissingExtraError, StoppedError
from rrtn.runtime.live import microphone
from rrtn.runtime.live.microphone import Microphone, devices, sound_of_microphone


def test_the_null_device_hears_silence_of_the_length_that_was_asked_for() -> None:
    with sound_of_microphone("null", rate=8_000, seconds=0.25) as source:
        heard = np.concatenate([*source.queue.blocks(source.patience)])
    assert (source.rate, heard.shape, heard.any()) == (8_000, (2_000, 1), False)


def test_it_can_be_left_before_its_end() -> None:
    with sound_of_microphone("null") as source:
        next(source.queue.blocks(source.patience))
    with sound_of_microphone("null", seconds=0.1) as again:
        assert sum(map(len, again.queue.blocks(again.patience))) == again.rate // 10


def test_a_device_that_does_not_start_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    import miniaudio

    done = []

    def refuse(device: object, taking: object) -> None:
        done.append("start")
        raise miniaudio.MiniaudioError("busy")

    close = miniaudio.CaptureDevice.close
    monkeypatch.setattr(miniaudio.CaptureDevice, "start", refuse)
    monkeypatch.setattr(
        miniaudio.CaptureDevice, "close", lambda device: (done.append("close"), close(device))
    )
    with pytest.raises(StoppedError, match="busy"), sound_of_microphone("null"):
        pass
    assert done[:2] == ["start", "close"]


def test_the_null_device_is_listed_by_its_name_alone() -> None:
    assert [device.name for device in devices("null")] == ["NULL Capture Device"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("1", "USB Audio"), ("3", "Monitor of Audio"), ("usb", "USB Audio"), ("Audio", "Audio")],
)
def test_a_device_is_chosen_by_number_or_name(monkeypatch: pytest.MonkeyPatch, name: str, found: str) -> None:
    names = ("USB Audio", "Audio", "Monitor of Audio")
    monkeypatch.setattr(
        microphone, "devices", lambda _: [Microphone(each, 48_000, 1, each) for each in names]
    )
    assert microphone._chosen(name).name == found
    assert microphone._chosen(None).id is None


@pytest.mark.parametrize(
    ("names", "name", "came"),
    [
        ((), None, "there is none"),
        (("USB", "Line"), "4", "no such device"),
        (("USB", "Line"), "usc", "no such device"),
        (("USB 1", "USB 2"), "usb", "2 devices have that name"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], name: str | None, came: str
) -> None:
    monkeypatch.setattr(
        microphone, "devices", lambda _: [Microphone(each, 48_000, 1, each) for each in names]
    )
    with pytest.raises(ConfigError) as caught:
        microphone._chosen(name)
    assert caught.value.came == came


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_seconds_that_cannot_be_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="--seconds"), sound_of_microphone("null", seconds=seconds):
        pass


def test_without_miniaudio_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "miniaudio", None)
    with pytest.raises(MissingExtraError) as caught:
        devices()
    assert caught.value.fix == 'pip install "miniaudio>=1.61"'
