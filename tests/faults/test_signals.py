"""Ctrl-C and SIGTERM: one line that is true of the command, at every moment. Rows 21 and 29 of issue 16."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rrtn.commands import program
from rrtn.train.run_folder import RunFolder
from rrtn_processes import Ended, Server

# `rrtn`, which gets a signal as it looks for the module that $AT names.
AT_IMPORT = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), int(os.environ["NUMBER"]))
sys.meta_path.insert(0, Finder())
runpy.run_module("rrtn", run_name="__main__", alter_sys=True)
"""


IMPORTS = [
    ("score", "typer"),
    ("score", "rrtn.commands.score"),
    ("score", "numpy"),
    ("score", "onnxruntime.capi"),
    ("train", "torch"),
    ("doctor", "rrtn.runtime.doctor"),
]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


def assert_one_line(code: int, err: str, *, number: int = signal.SIGINT) -> str:
    (line,) = (line for line in err.splitlines() if not line.startswith("score: "))  # a slow machine's
    assert (code, line.split(" | ")[0]) == (
        128 + number,
        f"rrtn: {WORDS[signal.Signals(number)]}",
    )
    return line


# 21


@pytest.mark.parametrize(
    ("number", "command", "module"),
    [
        pytest.param(number, *of, marks=[pytest.mark.slow] * (number != signal.SIGINT and of != IMPORTS[1]))
        for number in WORDS
        for of in IMPORTS
    ],
)
def test_n21_a_signal_during_the_imports_is_one_line(
    tmp_path: Path, tiny_model: Path, number: signal.Signals, command: str, module: str
) -> None:
    arguments = ["a.wav", "-m", str(tiny_model)] if command == "score" else []
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, command, *arguments, "--json"],
        cwd=tmp_path,
        env={**os.environ, "AT": module, "NUMBER": str(int(number))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    line = assert_one_line(done.returncode, done.stderr, number=number)
    assert json.loads(done.stdout)["error"]["exit_code"] == 128 + number
    if command == "train":
        assert "no run was begun" in line


@pytest.fixture(scope="module")
def run(server: Server, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch, `run`, and its bundle."""
    folder = tmp_path_factory.mktemp("run")
    assert stopped(server, folder, "train", "--data", corpus, "--epochs", 1, "--out", "run", at="").code == 0
    assert stopped(server, folder, "export", "run", "--no-cpu-variant", at="").code == 0
    return folder


def stopped(server: Server, cwd: Path, *arguments: object, at: str) -> Ended:
    """`rrtn` with a fail-point that sends it Ctrl-C."""
    return server.start(*arguments, cwd=cwd, RRTN_FAILPOINT=f"{at}:sigint" if at else "").wait()


@pytest.mark.slow  # it trains first
def test_n21_export_says_that_nothing_is_kept(server: Server, run: Path) -> None:
    bundle = RunFolder(run / "run").export
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    ended = stopped(server, run, "export", "run", "--no-cpu-variant", at="write.*")
    line = assert_one_line(ended.code, ended.error)
    assert "nothing is kept, and a bundle that was there is as it was | run the same command again" in line
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.mark.parametrize("out", [True, False])
def test_n21_score_says_whether_there_is_a_table(
    runtime_server: Server, tmp_path: Path, tiny_model: Path, real_clips: list[Path], out: bool
) -> None:
    arguments = ["score", real_clips[0], "-m", tiny_model]
    flags = ["--out", "s.csv"] if out else []
    ended = stopped(runtime_server, tmp_path, *arguments, *flags, at="model.*")
    line = assert_one_line(ended.code, ended.error)
    parts = "finished parts of about 512 files are kept beside s.csv"
    assert (parts if out else "nothing is kept: without --out") in line


def test_n21_train_says_what_is_kept_while_it_decodes(server: Server, corpus: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", corpus, "--epochs", 1, "--out", "a b")
    env = {"RRTN_CACHE": tmp_path / "cache", "RRTN_FAILPOINT": "write.*:sigint"}
    ended = server.start(*arguments, cwd=tmp_path, **env).wait()
    line = assert_one_line(ended.code, ended.error)
    assert line.endswith("| no run was begun; clips that are decoded are kept | run the same command again")


@pytest.mark.parametrize(
    ("arguments", "kept", "fix"),
    [
        ("bench", "nothing was written, and nothing is kept", "run the same command again"),
        ("inspect x", "nothing was written, and nothing is kept", "run the same command again"),
        ("parity", "nothing was written, and nothing is kept", "run the same command again"),
        ("report", "no page was written", "run the same command again"),
        ("pack x", "packs that are finished are kept", "run the same command again: it goes on there"),
        ("table2", "runs and checkpoints that are finished are kept", "it goes on there"),
        ("demo", "steps that are finished are kept", "run the same command again: it goes on there"),
        ("data synth x", "the folder is unfinished", "remove it, and run the same command again"),
        ("data check x", "clips that were decoded are kept", "run the same command again"),
        ("crossval --data x", "folds and checkpoints that are finished are kept", "it goes on there"),
        ("tracks x.csv", "files that were written are whole", "it goes on there"),
        ("train --dry-run", "nothing was written", "run the same command again"),
        ("train", "no run was begun", "run the same command again"),
        ("train --out run", "run run: it has no checkpoint yet", "rrtn train --resume --out run"),
        ("train --out=saved", "run saved: its last checkpoint is kept", "rrtn train --resume --out saved"),
        ("--json score x --out s.csv", "kept beside s.csv", "it goes on there"),
        ("score x", "nothing is kept: without --out there is no table", "run the same command again"),
    ],
)
def test_n21_each_command_says_what_is_true_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: str, kept: str, fix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "saved"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
    (tmp_path / "saved/checkpoints/last").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["rrtn", *arguments.split()])
    error = program.stopped_by_signal(signal.SIGTERM)
    assert error.exit_code == 143
    assert kept in error.came
    assert fix in error.fix


def test_advice_names_the_run_of_this_process_and_no_newer_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.toml").touch()
    monkeypatch.setattr(sys, "argv", ["rrtn", "train"])
    monkeypatch.setattr(program._State, "run", None)
    assert program.stopped_by_signal(signal.SIGINT).came.startswith("no run was begun")
    program.trains_in(Path("runs/mine"))
    os.utime("runs/mine/config.toml", (0, 0))  # of a clock that has stepped back since
    assert program.stopped_by_signal(signal.SIGINT).fix == "rrtn train --resume --out runs/mine"


@pytest.mark.parametrize("how", ["path", "relative", "absolute", "module"])
def test_n21_advice_names_the_program_as_it_was_called(tmp_path: Path, how: str) -> None:
    """A console script as pip writes it."""
    script = tmp_path / "my env/bin/rrtn"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n" + SCRIPT)
    script.chmod(0o755)
    called, name = {
        "path": (["rrtn"], "rrtn"),
        "relative": (["my env/bin/rrtn"], "'my env/bin/rrtn'"),
        "absolute": ([str(script)], f"'{script}'"),
        "module": ([sys.executable, "-m", "rrtn"], f"{sys.executable} -m rrtn"),
    }[how]
    path = f"{script.parent}:" if how == "path" else ""
    env = {**os.environ, "PATH": path + os.environ["PATH"]}
    for arguments, advice in (
        (["score", "x.wav"], f" | {name} export, or give -m BUNDLE"),
        (["scroe"], f" | {name} --help"),
    ):
        command = ["env", *called, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.stderr.strip().endswith(advice), done.stderr


SCRIPT = "import sys\nfrom rrtn.__main__ import main\nsys.exit(main())\n"


# 29


@pytest.mark.parametrize(
    ("numbers", "pause"),
    [
        pytest.param(numbers, pause, marks=[pytest.mark.slow] * is_slow)
        for numbers, slow in (
            ((signal.SIGINT, signal.SIGINT), ("0.02",)),
            ((signal.SIGTERM, signal.SIGTERM), ("0.02", "0.1")),
            ((signal.SIGINT, signal.SIGTERM, signal.SIGINT), ("0.02",)),
            ((signal.SIGHUP, signal.SIGHUP), ("0.02", "0.1")),
        )
        for pause in ("0", "0.02", "0.1")
        for is_slow in [pause in slow]
    ],
)
def test_n29_two_signals_at_once_are_one_line(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path], numbers: tuple[signal.Signals, ...], pause: str
) -> None:
    """To the group, as a terminal sends them, while a decoder hangs in a file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rrtn", "score", real_clips[0], "-m", tiny_model, "--out", "s.csv", "--json"],
        cwd=tmp_path,
        env={**os.environ, "RRTN_FAILPOINT": "read.*:sleep:all"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr
        assert process.stderr.readline().startswith("1 file, ")
        kill = "; ".join(f"kill -{int(number)} -{process.pid}; sleep {pause}" for number in numbers)
        subprocess.run(["sh", "-c", kill], check=False, stderr=subprocess.DEVNULL)
        out, err = process.communicate(timeout=120)
    assert process.returncode in {128 + number for number in numbers}
    assert_one_line(process.returncode, err, number=process.returncode - 128)
    assert json.loads(out)["error"]["exit_code"] == process.returncode


def test_n29_a_signal_waits_while_the_command_says_how_it_ended() -> None:
    code = """
import os, signal, sys, time
from rrtn.commands.program import catch_signals, ends_with, let_signals_end_it
catch_signals()
ends_with(130)
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
print("the line", file=sys.stderr, flush=True)
let_signals_end_it()
os.kill(os.getpid(), signal.SIGINT)
print("tidies up", file=sys.stderr, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "the line\n")


def test_n29_a_third_signal_waits_while_the_second_one_ends_the_command() -> None:
    code = """
import os, signal
from rrtn.commands import program
program.catch_signals()
write = program._write
def write_and_be_told_again(descriptor, text):
    write(descriptor, text)
    os.kill(os.getpid(), signal.SIGINT)
program._write = write_and_be_told_again
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert_one_line(done.returncode, done.stderr, number=signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_n29_a_second_signal_ends_what_tidies_up_for_ever(number: signal.Signals) -> None:
    code = """
import time
from rrtn.commands.program import catch_signals
catch_signals()
try:
    print("works", flush=True)
    time.sleep(100)
finally:
    print("tidies up", flush=True)
    time.sleep(100)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        for line in ("works", "tidies up"):
            assert process.stdout.readline().strip() == line
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert_one_line(process.returncode, err, number=number)


TWICE = """
import signal, sys
from rrtn.commands.program import catch_signals
catch_signals()
for number in map(int, sys.argv[1:]):
    try:
        signal.raise_signal(number)
    except SystemExit:
        pass
print("lives")
"""


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGHUP, signal.SIGHUP), 0),
        ((signal.SIGTERM, signal.SIGHUP), 0),
        ((signal.SIGHUP, signal.SIGTERM), 143),
    ],
)
def test_a_terminal_may_say_twice_that_it_ends(numbers: tuple[signal.Signals, ...], code: int) -> None:
    command = [sys.executable, "-c", TWICE, *(str(int(number)) for number in numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "" if code else "lives\n")
