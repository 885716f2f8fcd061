"""`rrtn score -` and `rrtn listen` as a shell runs them: what they print, and how they end."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.cli import app
from rrtn.runtime.errors import ConfigError
from terminals import on_terminal
from typer.testing import CliRunner

RRTN = f"{shlex.quote(sys.executable)} -m rrtn"
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.wav: 3 s of stereo at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("live")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44_100, 2))
    soundfile.write(folder / "a.wav", noise, 44_100)
    return folder


def shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def lines_of(out: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows, and the summary, which is the last line."""
    *rows, summary = [json.loads(line) for line in out.splitlines()]
    return rows, summary


def test_the_lines_are_those_of_a_files_table(folder: Path, tiny_model: Path) -> None:
    live = shell(f"cat a.wav | {RRTN} score - -m {tiny_model} --window 1 --hop 0.5", folder)
    file = shell(f"{RRTN} score a.wav -m {tiny_model} --window 1 --hop 0.5 --level running", folder)
    assert (live.returncode, file.returncode) == (0, 0), live.stderr
    assert live.stdout == file.stdout.replace("a.wav", "stdin")
    assert len(live.stdout.splitlines()) == 7
    assert "5 windows scored of 3.0 s of sound" in live.stderr


def test_with_json_each_window_is_a_line_and_the_summary_is_the_last(folder: Path, tiny_model: Path) -> None:
    done = shell(
        f"tail -c +45 a.wav | {RRTN} score - --rate 44100 --channels 2 -m {tiny_model} --json", folder
    )
    rows, summary = lines_of(done.stdout)
    assert [(row["file"], row["start"], row["end"]) for row in rows] == [
        ("stdin", 0.0, 2.49),
        ("stdin", 2.49, 3.0),
    ]
    assert all(row["scores"].keys() == {"Awe", "Fear", "Joy"} and row["latency"] >= 0 for row in rows)
    assert (summary["windows"], summary["audio_seconds"], summary["ended"]) == (2, 3.0, "the sound has ended")
    assert (summary["level"], summary["window"], summary["backend"]) == ("running", 2.49, "cpu")


@pytest.mark.parametrize(("option", "code"), [("", 3), ("--allow-truncated", 0)])
def test_a_cut_file_is_scored_and_said(folder: Path, tiny_model: Path, option: str, code: int) -> None:
    done = shell(f"head -c 400000 a.wav | {RRTN} score - -m {tiny_model} --json {option}", folder)
    rows, summary = lines_of(done.stdout)
    assert (done.returncode, len(rows)) == (code, 1)
    assert summary["missing"] == "129,244 bytes fewer than the WAV header says"
    assert "warning: 129,244 bytes fewer" in done.stderr


@pytest.fixture
def endless(folder: Path, tiny_model: Path) -> Iterator[Any]:
    """Starts a command whose sound does not end, and waits for its first window."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, under_nohup: bool = False) -> "subprocess.Popen[str]":
        signals = (
            "--ignore-signal=HUP" if under_nohup else "--default-signal=HUP"
        )  # whatever the tests are under
        started.append(
            subprocess.Popen(
                ["env", signals, sys.executable, "-m", "rrtn"]
                + [*map(str, arguments), "-m", str(tiny_model), "--json"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        process = started[-1]
        assert process.stdin
        if arguments[0] == "score":
            process.stdin.buffer.write(bytes(16_000))  # 1 s
            process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        *((("score", "-", "--rate", 8_000, "--window", 0.5), number) for number in WORDS),
        (("listen", "--device", "null", "--window", 0.5), signal.SIGINT),
    ],
)
def test_a_signal_ends_it_with_the_summary(
    endless: Any, arguments: tuple[object, ...], number: signal.Signals
) -> None:
    process = endless(*arguments)
    first = process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    rows, summary = lines_of(first + out)
    assert (process.returncode, summary["ended"]) == (128 + number, WORDS[number])
    assert summary["windows"] - len(rows) in (0, 1)  # one may be scored by then and not shown
    assert rows
    assert f"{WORDS[number]}: " in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_reader_that_has_gone_ends_it(folder: Path, tiny_model: Path) -> None:
    listen = f"{RRTN} listen --device null --window 0.2 --hop 0.2 -m {tiny_model}"
    command = f"{listen} | head -1; echo ${{PIPESTATUS[0]}}"
    done = shell(command, folder)
    assert done.stdout.splitlines() == ["file,start,end,Awe,Fear,Joy,error,flags", "141"]
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_on_a_terminal_the_last_window_stands_in_one_place(folder: Path, tiny_model: Path) -> None:
    screen = on_terminal(
        f"cat a.wav | {RRTN} score - -m {tiny_model} --window 1 --top 2", folder, columns=100
    )
    text = "\n".join(screen)
    assert text.count("ms later") == 1
    assert "2.0 to 3.0 s" in text
    (bar,) = [line for line in screen if "━" in line and line.startswith("Awe")]
    assert len([line for line in screen if "━" in line]) <= 2, text
    assert "0." in bar
    assert any("3 windows scored of 3.0 s of sound" in line for line in screen)


def test_a_terminal_is_no_sound(folder: Path, tiny_model: Path) -> None:
    """One line that says what to pipe."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "rrtn", "score", "-", "-m", str(tiny_model)]
    done = subprocess.run(
        command, cwd=folder, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    refusal = "rrtn: stdin | a terminal | expected sound from a pipe | ffmpeg -i SOURCE -f s16le -ac 1 "
    assert done.stderr.startswith(refusal)


def test_an_error_is_one_line_of_json_too(folder: Path, tiny_model: Path) -> None:
    done = shell(f"{RRTN} score - -m {tiny_model} --json < /dev/null", folder)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["error"]["came"] == "ended without any sound"
    assert done.returncode == 2
    assert done.stderr.startswith("rrtn: stdin | ended without any sound | expected WAV")


def test_a_wrong_option_is_one_line_of_json_too(folder: Path, tiny_model: Path) -> None:
    done = shell(f"{RRTN} score - --window 0 -m {tiny_model} --json < /dev/null", folder)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["error"]["exit_code"] == done.returncode == 2


def test_a_list_on_stdin_is_no_sound(folder: Path, tiny_model: Path) -> None:
    done = shell(f"{RRTN} score --list - --rate 1 -m {tiny_model} --json < /dev/null", folder)
    assert done.returncode == 2
    assert done.stdout.startswith('{\n  "error"')


def test_a_channel_that_is_missing_is_refused_with_the_summary(folder: Path, tiny_model: Path) -> None:
    done = shell(f"cat a.wav | {RRTN} score - --channel 3 -m {tiny_model} --json", folder)
    _, summary = lines_of(done.stdout)
    assert (done.returncode, summary["windows"], summary["ended"]) == (2, 0, "stopped")
    assert summary["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("options", "subject", "came"),
    [
        ("- --out s.csv", "--out", "is for files"),
        ("- --list -", "--list", "is for files"),
        ("- --batch-size 4", "--batch-size", "is for files"),
        ("- --timeout 60", "--timeout", "is for files"),  # the default
        ("- --embeddings", "--embeddings", "is for files"),
        ("- a.wav", "-", "beside other AUDIO"),
        ("a.wav --rate 8000", "--rate", "is for sound on stdin"),
        ("a.wav --drop-late", "--drop-late", "is for sound on stdin"),
        ("a.wav --level loud --window 1", "--level", "'loud'"),
        ("a.wav --level running", "--level running", "--window is missing"),
    ],
)
def test_options_without_effect_are_refused(
    tiny_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, subject: str, came: str
) -> None:
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, ["score", "-m", str(tiny_model), *options.split()]).exception
    assert isinstance(error, ConfigError)
    assert error.subject == subject
    assert came in error.came


def test_a_window_of_nothing_is_refused_for_stdin_as_for_files(folder: Path, tiny_model: Path) -> None:
    for sound in ("-", "a.wav"):
        done = shell(f"cat a.wav | {RRTN} score {sound} --window 0 -m {tiny_model}", folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--window | 0" in done.stderr


def test_a_file_may_be_named_like_stdin(folder: Path, tiny_model: Path) -> None:
    (folder / "-").write_bytes((folder / "a.wav").read_bytes())
    done = shell(f"{RRTN} score ./- -m {tiny_model}", folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_shell_that_leaves_takes_no_nohup_along(endless: Any) -> None:
    """Where SIGHUP is ignored, as under nohup, it stays ignored."""
    process = endless("listen", "--device", "null", "--window", 0.2, "--hop", 0.2, under_nohup=True)
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    for _ in range(3):
        assert json.loads(process.stdout.readline())["scores"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_header_without_a_sample_is_no_success(folder: Path, tiny_model: Path) -> None:
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    done = shell(f"{RRTN} score - -m {tiny_model} < empty.wav", folder)
    assert done.returncode == 3
    assert "0 windows" in done.stderr
