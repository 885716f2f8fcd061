"""Standard streams that are closed, full or without a reader: the table is written, without a traceback."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RRTN = f"{shlex.quote(sys.executable)} -m rrtn"


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / f"in/{i}.wav", np.random.default_rng(i).uniform(-0.5, 0.5, 800), 16_000)
    (tmp_path / "in/bad.wav").write_text("no audio")
    return tmp_path / "in"


def shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def rows_of(table: Path) -> int:
    with table.open(newline="") as file:
        return len(list(csv.DictReader(file)))


@pytest.mark.parametrize(
    "streams",
    [
        *("2>&-", "2>/dev/full", "0<&- 1>&- 2>&-"),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("2> >(exec 0<&-; sleep 1)", "0<&- 2>&-", ">&-")
        ),
    ],
)
def test_n16_the_table_is_written_whatever_stream_is_closed(
    noises: Path, tmp_path: Path, tiny_model: Path, streams: str
) -> None:
    done = shell(f"{RRTN} score in -m {tiny_model} --out t.csv {streams}", tmp_path)
    assert done.returncode == 3, done.stderr
    assert rows_of(tmp_path / "t.csv") == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".t.csv.rrtn", "in", "t.csv", "tiny.onnx"]


def test_n16_lines_for_the_person_never_come_to_stdout(
    noises: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """Where stderr is closed, print would take stdout."""
    done = shell(f"{RRTN} score in -m {tiny_model} 2>&-", tmp_path)
    assert done.returncode == 3
    assert len(list(csv.DictReader(done.stdout.splitlines()))) == 4


@pytest.mark.parametrize("arguments", ["score in -m tiny.onnx --json", "--help"])
def test_n16_a_closed_stdout_is_a_reader_that_has_gone(
    noises: Path, tmp_path: Path, tiny_model: Path, arguments: str
) -> None:
    done = shell(f"{RRTN} {arguments} >&-", tmp_path)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_n16_a_closed_stream_lends_its_number_to_no_file(tmp_path: Path) -> None:
    """Or what a library says on stderr would stand in a table."""
    program = (
        "from rrtn.commands.streams import hold_streams; hold_streams(); import os;"
        "number = os.open('file', os.O_CREAT | os.O_WRONLY); os.write(2, b'a word'); print(number)"
    )
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} 0<&- 2>&-", tmp_path)
    assert int(done.stdout) > 2
    assert (tmp_path / "file").read_bytes() == b""


def test_what_is_said_on_a_whole_stderr_is_as_it_was(tmp_path: Path) -> None:
    done = shell(f"{RRTN} score caf\u00e9.wav -m nowhere", tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("rrtn: ")
    assert done.stderr.count("\n") == 1
    assert os.fsencode(done.stderr)


@pytest.fixture
def noisy(tmp_path: Path, real_clips: list[Path]) -> Path:
    """An mp3 with bytes between its frames that are none. libmpg123 says so on stderr."""
    content = next(path for path in real_clips if path.suffix == ".mp3").read_bytes()
    (tmp_path / "noisy.mp3").write_bytes(content[:3_000] + b"\xff\xfbzz" * 50 + content[3_000:])
    return tmp_path / "noisy.mp3"


@pytest.mark.parametrize(
    ("begins", "is_quiet"),
    [
        ("from rrtn.commands.streams import hold_streams; hold_streams()", True),
        ("pass", False),
    ],
)
def test_codecs_are_silent_where_the_persons_stderr_is_not_theirs(
    noisy: Path, begins: str, is_quiet: bool
) -> None:
    """In a program of another one they are not."""
    code = f"""
import os, sys
{begins}
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.system.descriptors import quiet_codecs
with quiet_codecs():
    print("before", file=sys.stderr)
    assert read_audio({str(noisy)!r}, FrontendSpec()).samples.any()
    print("after", file=sys.stderr)
os.write(2, b"the end\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in ("before", "after", "the end")] == [
        "before",
        "after",
        "the end",
    ]
    assert (len(lines) == 3) == is_quiet, done.stderr


CRASHES = """
import os, sys
from rrtn.commands.streams import hold_streams
from rrtn.runtime.system.descriptors import quiet_codecs
hold_streams()
with quiet_codecs():
    os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGABRT, "Aborted"), (signal.SIGSEGV, "Segmentation fault")]
)
def test_a_crash_among_silent_codecs_has_a_word(number: signal.Signals, word: str) -> None:
    command = [sys.executable, "-c", CRASHES, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert f"Fatal Python error: {word}" in done.stderr


OVERLAP = """
import os, sys, threading
from rrtn.commands.streams import hold_streams
from rrtn.runtime.system.descriptors import quiet_codecs
hold_streams()
before = [os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)]
both, first_ended, inside = threading.Barrier(2), threading.Event(), []
def decode(is_first):
    with quiet_codecs():
        both.wait()
        if not is_first:
            first_ended.wait()
            inside.extend(os.readlink(f"/proc/self/fd/{number}") for number in (1, 2))
    first_ended.set()
threads = [threading.Thread(target=decode, args=(is_first,)) for is_first in (True, False)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert inside == [os.devnull] * 2, inside
assert before == [os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)]
"""


FORKS = """
import os, sys, threading
from rrtn.commands.streams import hold_streams
from rrtn.runtime.system import descriptors
hold_streams()
inside, ends = threading.Event(), threading.Event()
def decode():
    with descriptors.quiet_codecs(), descriptors._Nowhere.lock:
        inside.set()
        ends.wait()
thread = threading.Thread(target=decode)
thread.start()
inside.wait()
if not (child := os.fork()):
    with descriptors.quiet_stdout():
        os.write(1, b"silent")
    os.write(1, b"stdout")
    os.write(2, b"stderr")
    os._exit(0)
_, status = os.waitpid(child, 0)
ends.set()
thread.join()
assert status == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_the_streams_that_its_parents_threads_had_silenced() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"stdout", b"stderr")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not say where they lead")
def test_threads_that_overlap_leave_the_streams_as_they_were() -> None:
    subprocess.run([sys.executable, "-c", OVERLAP], stdout=subprocess.PIPE, check=True)


def test_what_codecs_say_is_not_among_our_lines(noisy: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Where files are decoded in the process of the command."""
    model = shlex.quote(str(tiny_model))
    scored = shell(f"{RRTN} score noisy.mp3 -m {model} --window 1 --out t.csv", tmp_path)
    assert scored.returncode == 0, scored.stderr
    drawn = shell(f"{RRTN} tracks t.csv --as html --out tracks", tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "tracks/t.html").exists()
    assert "Note:" not in drawn.stderr


def test_what_codecs_say_is_not_among_the_lines_of_data_check(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "data/wav").mkdir(parents=True)
    lines = ["File_ID,Split,Subject_ID,Joy"]
    for i, split in enumerate(("Train", "Train", "Val", "Val")):
        (tmp_path / f"data/wav/{i}.mp3").write_bytes(noisy.read_bytes())
        lines.append(f"{i}.mp3,{split},{i},0.{i}")
    (tmp_path / "data/data_info.csv").write_text("\n".join(lines))
    checked = shell(f"RRTN_CACHE=cache {RRTN} data check data --json", tmp_path)
    assert json.loads(checked.stdout)["bad_files"] == {}
    assert "Note:" not in checked.stderr


def test_a_second_signal_while_files_are_decoded_ends_in_a_line() -> None:
    code = """
from rrtn.commands import program
from rrtn.commands.streams import hold_streams
from rrtn.runtime.system.descriptors import quiet_codecs
hold_streams()
with quiet_codecs():
    program._end_at_once(15)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr.startswith("rrtn: terminated")


def test_n29_a_line_during_which_a_signal_comes_is_not_written_twice(tmp_path: Path) -> None:
    """A handler that raises, at many moments of many lines, as Ctrl-C and SIGTERM do."""
    code = """
import signal, sys
from rrtn.commands.streams import hold_streams
hold_streams()
def ends(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, ends)
for i in range(4000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + i % 40))
        print(f"line {i}", file=sys.stderr, flush=True)
        while True:
            pass
    except KeyboardInterrupt:
        pass
"""
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    ).stderr.split()
    numbers = [word for word in lines if word.isdigit()]
    assert len(numbers) > 100
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "command", ["inspect {model} --json", "inspect {model}", "score {sound} -m {model} --json"]
)
def test_a_full_disk_behind_stdout_is_one_line(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path], command: str
) -> None:
    """Also with --json, where a document of the error would go the same way."""
    full = command.format(model=tiny_model, sound=real_clips[0])
    done = shell(f"{RRTN} {full} > /dev/full", tmp_path)
    assert done.returncode == 4
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
