"""Machines that lack what most have: row 29 of issue 16. Each command works, or says one clear line."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RRTN = (sys.executable, "-m", "rrtn")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
Call = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def call(tmp_path: Path, tiny_model_at: Callable[[Path], Path], real_clips: list[Path]) -> Call:
    """`rrtn` beside `modèle.onnx` and a folder `gesänge` with one recording, which is named in Unicode."""
    tiny_model_at(tmp_path / "modèle.onnx")
    (tmp_path / "gesänge").mkdir()
    shutil.copy(real_clips[0], tmp_path / "gesänge/ä😀.mp3")
    (tmp_path / "cache").mkdir()

    def run(*arguments: object, **env: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*RRTN, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "RRTN_CACHE": str(tmp_path / "cache"), **env},
            capture_output=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "env", [ASCII, pytest.param({"PYTHONIOENCODING": "ascii:strict"}, marks=pytest.mark.slow)]
)
def test_n29_an_ascii_locale_scores_and_prints_every_name(
    call: Call, tmp_path: Path, env: dict[str, str]
) -> None:
    done = call("score", "gesänge", "-m", "modèle.onnx", "--out", "sä.csv", **env)
    assert done.returncode == 0, done.stderr
    assert "gesänge/ä😀.mp3" in (tmp_path / "sä.csv").read_text(encoding="utf-8")
    printed = call("score", "gesänge", "-m", "modèle.onnx", **env)
    assert (printed.returncode, printed.stdout.count(b"\n")) == (0, 2), printed.stderr
    synth = ["data", "synth", "söund", "--clips", 3, "--speakers", 3, "--workers", 1]
    for arguments in (["--help"], ["inspect", "modèle.onnx"], synth):
        ended = call(*arguments, **env)
        assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False), ended.stderr


@pytest.mark.slow
def test_n29_a_name_that_the_locale_cannot_hold_is_one_line(call: Call, tmp_path: Path) -> None:
    assert call("data", "synth", "söund", "--clips", 9, "--speakers", 3, "--workers", 1).returncode == 0
    done = call("train", "--data", "söund", "--epochs", 1, "--batch-size", 2, "--out", "run", **ASCII)
    line = done.stderr.decode().splitlines()[-1]
    assert done.returncode == 2
    assert line.startswith("rrtn: '")
    assert line.endswith(
        "the locale's encoding is ascii | expected names in UTF-8 | "
        "export PYTHONUTF8=1, and run the command again"
    )


def test_n29_nobody_without_a_home(call: Call, tmp_path: Path) -> None:
    """A user number that no passwd file knows, as containers have it: getpwuid fails."""
    fake = "import pwd\ndef none(number): raise KeyError(number)\npwd.getpwuid = none\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(fake)
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME")
    env = ["env", *(part for name in names for part in ("-u", name))]
    paths = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    for arguments in (["score", "gesänge", "-m", "modèle.onnx", "--out", "s.csv"], ["doctor"]):
        done = subprocess.run(
            [*env, *RRTN, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["score", "train", "demo", "export", "data check", "doctor"])
def test_n29_a_removed_working_directory_is_one_line(tmp_path: Path, command: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd "$0" && rmdir "$0" && exec "$@" {command}'
    done = subprocess.run(
        ["sh", "-c", shell, gone, *RRTN], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "rrtn: the working directory | was removed | cd to a folder that is there\n"


@pytest.fixture
def listener() -> Iterator[Callable[[bytes], int]]:
    """A port that accepts every connection, says something or nothing, and answers nothing."""
    opened: list[socket.socket] = []

    def listen(says: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                opened.append(client)
                client.sendall(says)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield listen
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("prefix", "says", "came"),
    [
        pytest.param("", b"", "does not answer within 5 s", marks=pytest.mark.slow),
        pytest.param("ray://", b"", "does not answer within 5 s", marks=pytest.mark.slow),
        ("", b"HTTP/1.1 400 Bad Request\r\n\r\n", "another program answers there"),
        pytest.param("auto", b"", "does not answer within 5 s", marks=pytest.mark.slow),
    ],
)
def test_n29_a_ray_address_that_never_answers_is_one_line(
    call: Call, listener: Callable[[bytes], int], tmp_path: Path, prefix: str, says: bytes, came: str
) -> None:
    """Ray would wait for a minute or more, and print warnings of its own."""
    address = f"{prefix}127.0.0.1:{listener(says)}"
    if prefix == "auto":  # what a cluster that has gone has left
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray/ray_current_cluster").write_text(address.removeprefix("auto"))
        address = "auto"
    arguments = ("score", "gesänge", "-m", "modèle.onnx", "--out", "s.csv", "--engine", "ray")
    done = call(*arguments, "--ray-address", address, RAY_TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.decode().startswith(
        f"rrtn: --ray-address {address} | {came} | expected a running cluster's"
    )
    assert done.stderr.count(b"\n") == 1
