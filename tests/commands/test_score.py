"""rrtn score: what it says before it scores, and what it leaves when it ends."""

import threading
from pathlib import Path

import pytest
from rrtn.cli import app
from rrtn.runtime.errors import ConfigError, DataError


def score(*arguments: object) -> None:
    app(["score", *map(str, arguments)], standalone_mode=False)


def children() -> set[str]:
    of_main = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
    return set(of_main.read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_decoders_end_with_the_command_that_fails(tiny_model: Path, tmp_path: Path) -> None:
    """Whoever calls it may keep the error, and with it all that its frames hold."""
    (tmp_path / "empty").mkdir()
    before = children()
    with pytest.raises(DataError, match="no audio files found") as caught:
        score(tmp_path / "empty", "-m", tiny_model)
    assert caught.tb and children() == before


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (("--hop", 9), r"--hop \| 9.0 without --window"),
        (("--window", -0.1, "--hop", 9), r"--window \| -0.1"),
        (("--segment", "--window", 9, "--hop", 10), r"--window \| 9.0 s"),
    ],
)
def test_windows_that_are_refused_are_not_told_of(
    options: tuple[object, ...],
    refused: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ConfigError, match=refused):
        score(tmp_path / "a.wav", "-m", tiny_model, *options)
    assert "note:" not in capsys.readouterr().err


def test_bursts_that_are_heard_in_part_are_told_of(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        score(tmp_path / "empty", "-m", tiny_model, "--segment", "--hop", 9)
    assert ", 9 s apart" in capsys.readouterr().err
