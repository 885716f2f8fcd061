"""One bar at a time, each with its name and its times, and nothing is silent."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from rrtn.runtime import progress
from rrtn.runtime.progress import Progress, bar_line, print_above
from terminals import screen_of


class Terminal(io.StringIO):
    """Says that it is one."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def pieces(self) -> list[str]:
        """What stood on the line of the bar, one after the other."""
        return [piece for piece in self.getvalue().split("\r\x1b[2K") if piece]


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Puts a terminal, or a pipe, in the place of stderr; drawing is quick there."""

    def make(columns: int = 80, *, is_terminal: bool = True) -> Terminal:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        for name in ("_REFRESH_SECONDS", "_FIRST_LINE_SECONDS", "_LINE_SECONDS"):
            monkeypatch.setattr(progress, name, 0.005)
        made = Terminal(is_terminal=is_terminal)
        monkeypatch.setattr(sys, "stderr", made)
        return made

    return make


def wait_for(condition: Callable[[], bool]) -> None:
    latest = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.001)


def test_n19_two_bars_never_share_a_line(stderr: Callable[..., Terminal]) -> None:
    """A bar inside another one, as an export measures convolutions, and the outer one goes on after it."""
    shown = stderr()
    with Progress("export", 4, "variants") as outer:
        wait_for(lambda: "export" in shown.getvalue())
        outer.update(1, "cpu")
        with Progress("measure", 9, "ways") as inner:
            wait_for(lambda: "measure" in shown.getvalue())
            begin = len(shown.getvalue())
            inner.advance(1, "conv1")
            outer.update(2, "waveform")
            wait_for(lambda: "1/9 ways" in shown.getvalue())
            assert "export" not in shown.getvalue()[begin:]
        wait_for(lambda: "2/4 variants" in shown.getvalue())
    assert [piece for piece in shown.pieces() if "export" in piece and "measure" in piece] == []
    assert screen_of(shown.getvalue()) == [""]  # and nothing is left of them


def test_n19_a_line_that_is_printed_stands_above_the_bar(stderr: Callable[..., Terminal]) -> None:
    shown = stderr()
    with Progress("score", 4, "files"):
        print_above("note: it is late")
        assert "note: it is late\n" in shown.pieces()
        first, second = screen_of(shown.getvalue())
    assert (first, second[:7]) == ("note: it is late", "score  ")


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
@pytest.mark.parametrize(
    ("label", "total", "unit", "note"),
    [
        ("score", 1_200_000, "files", "12 errors"),
        ("PyTorch's scores", 132, "clips", ""),
        ("export", 10, "variants", "waveform-fp16 45%, building engine"),
        ("load torch", None, "", ""),
    ],
)
def test_n19_each_bar_names_its_work_and_has_both_times(
    stderr: Callable[..., Terminal], columns: int, label: str, total: int | None, unit: str, note: str
) -> None:
    shown = stderr(columns)
    with Progress(label, total, unit) as bar:
        bar.update(7, note)
        wait_for(lambda: len(shown.pieces()) > 3 and (columns < 120 or note in shown.pieces()[-1]))
    for piece in shown.pieces():
        assert piece.startswith(label)
        assert re.search(r"  elapsed \d+ s  left (\d+ (s|min)|\d+ h \d\d min|\?)$", piece)
        assert len(piece) < columns
    if columns >= 120:
        assert note in shown.pieces()[-1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_n19_work_that_never_advances_is_not_silent(
    stderr: Callable[..., Terminal], is_terminal: bool
) -> None:
    shown = stderr(is_terminal=is_terminal)
    with Progress("load torch"):
        wait_for(lambda: len(re.findall("load torch", shown.getvalue())) > 3)
    if not is_terminal:
        assert re.fullmatch(r"(load torch: elapsed \d+ s, left \?\n)+", shown.getvalue())


def test_n19_lines_of_a_log_have_a_name_and_both_times(stderr: Callable[..., Terminal]) -> None:
    shown = stderr(is_terminal=False)
    with Progress("decode Train", 20, "files") as bar:
        bar.update(5, "a.wav")
        wait_for(lambda: "5/20" in shown.getvalue())
        bar.update(20)
    *_, before, last = shown.getvalue().splitlines()
    times = r"elapsed \d+ s, left \d+ s"
    assert re.fullmatch(rf"decode Train: (5|20)/20 files, \d+\.\d/s, {times}( \| a.wav)?", before)
    assert re.fullmatch(rf"decode Train: 20/20 files, \d+\.\d/s, {times}", last)


def test_n19_short_work_prints_nothing_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("decode", 3, "files") as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""


def test_n19_work_that_is_done_already_shows_no_bar(stderr: Callable[..., Terminal]) -> None:
    shown = stderr()
    with Progress("decode Train", 0, "files"):
        pass
    assert shown.getvalue() == ""


def test_n19_of_several_processes_on_a_terminal_one_shows_bars(
    stderr: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = stderr()
    monkeypatch.setenv("LOCAL_RANK", "1")
    with Progress("decode Train", 9, "files") as bar:
        bar.advance()
    assert shown.getvalue() == ""


def test_n19_an_error_inside_ends_bar_and_thread(stderr: Callable[..., Terminal]) -> None:
    shown = stderr()
    with pytest.raises(ZeroDivisionError), Progress("decode", 9, "files"):
        raise ZeroDivisionError
    assert screen_of(shown.getvalue()) == [""]
    assert [thread.name for thread in threading.enumerate() if thread.name == "progress"] == []


def test_n18_a_bars_line_drops_parts_and_never_cuts_one() -> None:
    parts = {"count": "1204/19990 clips", "rate": "96.1/s", "times": ("elapsed 12 s", "left 3 min")}
    whole = {"decode Train", "a note", "1204/19990 clips", "96.1/s", "elapsed 12 s", "left 3 min"}
    kept = []
    for width in range(13, 140):
        line = bar_line("decode Train", "a note", 0.06, width=width, **parts)
        assert len(line) <= width
        words = [part for part in line.split("  ") if not set(part) <= set("━─ ")]
        assert set(words) <= whole
        kept.append(len(words))
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (1, 6)


def test_n19_many_short_pieces_of_work_are_not_silent_together(
    stderr: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them lasts until its first line would come; together they do, and one of them speaks."""
    shown = stderr(is_terminal=False)
    monkeypatch.setattr(progress, "_FIRST_LINE_SECONDS", 0.5)
    latest = time.monotonic() + 60
    while not shown.getvalue():
        assert time.monotonic() < latest
        with Progress("read the run"):
            time.sleep(0.05)
    assert shown.getvalue().startswith("read the run: elapsed ")


def test_what_is_in_work_is_asked_for_at_each_drawing_and_stands_before_the_note(
    stderr: Callable[..., Terminal],
) -> None:
    shown, reached = stderr(120), ["night.wav to 2 min"]
    with Progress("score", 2, "files") as bar:
        bar.watch(lambda: reached[0])
        wait_for(lambda: "night.wav to 2 min" in shown.pieces()[-1])
        bar.advance(note="1 error")
        wait_for(lambda: "night.wav to 2 min, 1 error" in shown.pieces()[-1])
        reached[0] = ""
        wait_for(lambda: "1 error" in shown.pieces()[-1] and "night" not in shown.pieces()[-1])


FORKS = """
import os, threading
from rrtn.runtime import progress
holds, ends = threading.Event(), threading.Event()
def draw():
    with progress._Stderr.lock:
        holds.set()
        ends.wait()
threading.Thread(target=draw).start()
holds.wait()
child = os.fork()
if not child:
    progress.print_above("the child")
    os._exit(0)
_, status = os.waitpid(child, 0)
ends.set()
assert status == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_does_not_wait_for_a_thread_that_draws() -> None:
    made = subprocess.run([sys.executable, "-c", FORKS], check=True, stderr=subprocess.PIPE, timeout=60)
    assert made.stderr == b"the child\n"
