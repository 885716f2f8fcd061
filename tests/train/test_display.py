"""What is seen of a training: exact lines in a log, a table that fits on a terminal, and
TensorBoard's files.
"""

import io
import math
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.live import Live
from rrtn.runtime.errors import MissingExtraError
from rrtn.runtime.progress import duration
from rrtn.train import display as display_module
from rrtn.train.display import Display, Part
from terminals import CONTROL, screen_of

TERM_NAMES = (
    "FORCE_COLOR",
    "NO_COLOR",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "JUPYTER_COLUMNS",
    "JUPYTER_LINES",
)


class Clock:
    """Stands still until it is told to go."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Says that it is one, and knows what a person would see on it."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        return screen_of(self.getvalue())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display_module, "monotonic", clock)
    monkeypatch.setattr(display_module, "_TICK_SECONDS", 1e6)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Puts a terminal of that size in the place of stderr."""

    def make(width: int = 80, height: int = 24) -> Terminal:
        for name in TERM_NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm", "COLUMNS": str(width), "LINES": str(height)}.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return make


def record_of(epoch: int, *, val_ccc: float = 0.4312, twins: bool = True) -> dict[str, Any]:
    record: dict[str, Any] = {"epoch": epoch, "step": 10 * epoch, "loss": 0.9121, "l_ccc": 0.4014}
    if twins:
        record |= {"l_ccc_a": 0.4502, "l_bt": 812.3, "weights": [1.0, 0.98, 1e-4]}
    return {
        **record,
        "grad_norm": 2.5,
        "lr": 1e-3,
        "val_ccc": val_ccc,
        "val_ccc_per_target": {"Awe": val_ccc, "Joy": 0.1},
    }


def run_epoch(display: Display, clock: Clock, epoch: int, *, is_best: bool = True, **changes: Any) -> None:
    """1000 clips in 10 s of training, 500 in 5 s of validation."""
    display.start_epoch(epoch)
    for _ in range(10):
        clock.now += 1
        display.advance(100)
    display.validating(500)
    for _ in range(5):
        clock.now += 1
        display.advance_validation(100)
    display.end_epoch(record_of(epoch + 1, **changes), is_best=is_best)


def test_a_log_has_one_line_an_epoch_and_its_rate_is_that_of_training(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Display(epochs=3, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e12) as display:
        run_epoch(display, clock, 0)
        clock.now += 45  # a checkpoint is written
        display.say("checkpoint saved")
        run_epoch(display, clock, 1, is_best=False, val_ccc=0.40)
        run_epoch(display, clock, 2, val_ccc=0.45)
    out, err = capsys.readouterr()
    losses = "loss 0.912  ccc 0.401  ccc_a 0.450  bt 812  w 1.00/0.98/1.0e-04"
    speed = "100.0 clips/s  40% of peak"
    assert out == ""
    assert [line for line in err.splitlines() if "loss" in line or "saved" in line] == [
        f"epoch   1/3  {losses}  |  Val CCC 0.431  best  |  {speed}  |  elapsed 15 s  left 30 s",
        "checkpoint saved",
        f"epoch   2/3  {losses}  |  Val CCC 0.400  |  {speed}  |  elapsed 75 s  left 15 s",
        f"epoch   3/3  {losses}  |  Val CCC 0.450  best  |  {speed}  |  elapsed 2 min  left 0 s",
    ]


def test_a_log_says_within_an_epoch_how_far_it_is_soon_and_then_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Display(epochs=2, clips_per_epoch=4000) as display:
        display.start_epoch(0)
        for _ in range(50):
            clock.now += 0.5
            display.advance(50)
        display.validating(300)
        for _ in range(20):
            clock.now += 0.5
            display.advance_validation(5)
    assert capsys.readouterr().err.splitlines() == [
        "epoch   1/2  Train 150/4000 clips  |  100.0 clips/s  |  elapsed 2 s  left 79 s",
        "epoch   1/2  Train 1150/4000 clips  |  100.0 clips/s  |  elapsed 12 s  left 69 s",
        "epoch   1/2  Train 2150/4000 clips  |  100.0 clips/s  |  elapsed 22 s  left 59 s",
        # 25 s of training, 6.5 s of validation, of which 23 s are left; the second epoch takes 40 s and 30 s
        "epoch   1/2  Val 65/300 clips  |  10.0 clips/s  |  elapsed 32 s  left 2 min",
    ]


def test_the_vanilla_method_has_one_loss(
    clock: Clock, capsys: pytest.CaptureFixture[str], terminal: Callable[..., Terminal]
) -> None:
    with Display(epochs=2, clips_per_epoch=1000) as display:
        run_epoch(display, clock, 0, twins=False)
    losses = "loss 0.912  ccc 0.401  |  Val CCC 0.431  best"
    line = f"epoch   1/2  {losses}  |  100.0 clips/s  |  elapsed 15 s  left 15 s"
    assert capsys.readouterr().err.splitlines()[-1] == line
    screen = terminal(80)
    with Display(epochs=2, clips_per_epoch=1000) as display:
        run_epoch(display, clock, 0, twins=False)
    assert screen.screen()[0].split() == ["epoch", "loss", "ccc", "Val", "CCC", "clips/s"]
    assert screen.screen()[2].split() == ["1", "0.912", "0.401", "0.431", "best", "100.0"]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (140, ["epoch", "loss", "ccc", "ccc_a", "bt", "weights", "Val CCC", "clips/s", "peak"]),
        (79, ["epoch", "loss", "ccc", "ccc_a", "bt", "weights", "Val CCC", "clips/s", "peak"]),
        (78, ["epoch", "loss", "ccc", "ccc_a", "bt", "weights", "Val CCC", "clips/s"]),
        (60, ["epoch", "loss", "ccc", "ccc_a", "bt", "Val CCC", "clips/s"]),
        (40, ["epoch", "loss", "Val CCC", "clips/s"]),
        (20, ["epoch", "Val CCC"]),
    ],
)
def test_a_terminal_shows_the_columns_that_fit_and_no_line_is_wider(
    width: int, columns: list[str], clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    stderr = terminal(width)
    with Display(epochs=60, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e12) as display:
        run_epoch(display, clock, 0)
        run_epoch(display, clock, 1, is_best=False, val_ccc=0.40)
        display.start_epoch(2)
        clock.now += 1
        display.advance(500)
    cells = {
        "epoch": "1",
        "loss": "0.912",
        "ccc": "0.401",
        "ccc_a": "0.450",
        "bt": "812",
        "weights": "1.00/0.98/1.0e-4",
    }
    cells |= {"Val CCC": "0.431", "clips/s": "100.0", "peak": "40%"}
    header, rule, first, second, progress, *rest = stderr.screen()
    assert max(map(len, re.split(r"[\r\n]", CONTROL.sub("", stderr.getvalue())))) <= width
    assert header.split() == " ".join(columns).split()
    assert set(rule) == {"─"}
    assert first.replace("best", "").split() == [cells[name] for name in columns]
    assert "best" in first
    assert "best" not in second
    assert progress.startswith("epoch 3/60 Train  ━" if width > 20 else "epoch 3/60 Train")
    assert rest == [""]


def test_the_progress_line_drops_what_a_narrow_terminal_has_no_room_for(
    clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    lines = {}
    for width in (140, 80, 60, 40):
        stderr = terminal(width)
        with Display(epochs=60, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e12) as display:
            display.start_epoch(2)
            clock.now += 2
            display.advance(400)
        lines[width] = re.sub(r"\s*[━─]+\s*", " # ", stderr.screen()[0])
        assert len(stderr.screen()[0]) <= width
    whole = "epoch 3/60 Train # 200.0 clips/s  80% of peak  elapsed 2 s  left 5 min"
    assert lines == {
        140: whole,
        80: whole,
        60: "epoch 3/60 Train # elapsed 2 s  left 5 min",
        40: "epoch 3/60 Train # left 5 min",
    }


def test_the_bar_is_as_full_as_the_epoch_is_done(clock: Clock, terminal: Callable[..., Terminal]) -> None:
    stderr = terminal(140)
    with Display(epochs=2, clips_per_epoch=1000) as display:
        display.start_epoch(0, done_clips=500)
        clock.now += 1
        display.advance(250)
    assert [stderr.screen()[0].count(part) for part in "━─"] == [30, 10]


def test_validation_is_in_the_same_table_and_lines_stay_above_it(
    clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    stderr = terminal(80)
    with Display(epochs=2, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e12) as display:
        run_epoch(display, clock, 0)
        display.say("checkpoint saved in runs/[bold]a[/]")
        display.start_epoch(1)
        display.validating(500)
        clock.now += 1
        display.advance_validation(200)
        print("a warning", file=sys.stderr)
        assert "Val" in stderr.screen()[-1]
        assert "200.0 clips/s" in stderr.screen()[-1]
        assert "of peak" not in stderr.screen()[-1]  # which is of a training step's FLOPs
    screen = stderr.screen()
    assert screen[:2] == ["checkpoint saved in runs/[bold]a[/]", "a warning"]
    assert [line.split()[0] for line in screen[2:] if line] == ["epoch", "─" * len(screen[3]), "1", "epoch"]
    assert stderr.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_the_best_epoch_stays_when_it_has_scrolled_out(
    clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    stderr = terminal(80, 40)
    with Display(epochs=30, clips_per_epoch=1000) as display:
        for epoch in range(30):
            display.start_epoch(epoch)
            display.end_epoch(record_of(epoch + 1), is_best=epoch < 3)
    rows = [line.split() for line in stderr.screen()[2:] if line]
    assert [int(row[0]) for row in rows] == [3, *range(19, 31)]
    assert ["best" in row for row in rows] == [True] + [False] * 12


def test_after_a_resume_no_epoch_may_be_the_best(clock: Clock, terminal: Callable[..., Terminal]) -> None:
    stderr = terminal(80, 40)
    with Display(epochs=40, clips_per_epoch=1000) as display:
        for epoch in range(10, 30):
            display.start_epoch(epoch)
            display.end_epoch(record_of(epoch + 1), is_best=False)
    assert [line.split()[0] for line in stderr.screen()[2:-2]] == [str(epoch) for epoch in range(19, 31)]
    assert "best" not in stderr.getvalue()


@pytest.mark.parametrize("height", [8, 12, 24])
def test_the_table_is_never_taller_than_the_terminal(
    height: int, clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    stderr = terminal(80, height)
    with Display(epochs=40, clips_per_epoch=1000) as display:
        for epoch in range(30):
            display.start_epoch(epoch)
            display.end_epoch(record_of(epoch + 1), is_best=epoch < 3)
        display.start_epoch(30)
        assert len(stderr.screen()) < height
        assert "epoch 31/40 Train" in stderr.screen()[-1]


def test_stdout_is_left_alone_for_json(
    clock: Clock, terminal: Callable[..., Terminal], capfd: pytest.CaptureFixture[str]
) -> None:
    stdout, stderr = sys.stdout, terminal(80)
    with Display(epochs=1, clips_per_epoch=1000) as display:
        assert sys.stdout is stdout
        run_epoch(display, clock, 0)
    assert capfd.readouterr().out == ""
    assert sys.stderr is stderr


def test_a_dumb_terminal_gets_plain_lines(
    clock: Clock, terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    with Display(epochs=1, clips_per_epoch=1000) as display:
        run_epoch(display, clock, 0)
    assert "\x1b" not in stderr.getvalue()
    assert stderr.getvalue().splitlines()[-1].startswith("epoch   1/1  loss 0.912")


def test_a_quiet_display_prints_nothing_and_writes_nothing(
    clock: Clock, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_tensorboard(monkeypatch)  # it is not even looked for
    with Display(epochs=2, clips_per_epoch=1000, tensorboard=tmp_path / "tensorboard", quiet=True) as display:
        for epoch in range(2):
            run_epoch(display, clock, epoch)
            clock.now += 60
            display.advance(1)
        display.say("checkpoint saved")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_epoch_counts_only_the_clips_done_here(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Display(epochs=3, clips_per_epoch=10_000) as display:
        display.start_epoch(1, done_clips=7000)
        clock.now += 20
        display.advance(1000)
        display.validating(500)
        display.end_epoch(record_of(2), is_best=True)
    progress, epoch = capsys.readouterr().err.splitlines()
    clips = "Train 8000/10000 clips"
    # 12,000 clips are left
    assert progress == f"epoch   2/3  {clips}  |  50.0 clips/s  |  elapsed 20 s  left 4 min"
    assert epoch.endswith("|  50.0 clips/s  |  elapsed 20 s  left 3 min")


def test_a_part_of_a_table_says_which_and_how_long_the_whole_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs of 100 s each, and after this run half as much again as it is: 100 s."""
    part = Part(label="2/3 cnn10-rrtn seed 1", later=0.5)
    with Display(epochs=2, clips_per_epoch=1000, part=part) as display:
        display.start_epoch(0)
        clock.now += 90
        display.advance(900)
        clock.now += 10
        display.advance(100)
    assert capsys.readouterr().err.splitlines()[0] == (
        "2/3 cnn10-rrtn seed 1  |  epoch   1/2  Train 900/1000 clips  |  10.0 clips/s  |  "
        "elapsed 2 min  left 2 min (4 min in all)"
    )  # 110 s, and 100 s


def test_the_runs_of_one_command_say_a_note_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = set[str]()
    for number, notes in enumerate((["3 clips are silent"], ["3 clips are silent", "a leak"])):
        with Display(epochs=1, clips_per_epoch=10, part=Part(label=f"{number}/2", said=said)) as display:
            display.say_notes(notes)
    for _ in range(2):  # runs of their own
        with Display(epochs=1, clips_per_epoch=10) as display:
            display.say_notes(["alone"])
    assert capsys.readouterr().err.splitlines() == [
        "note: 3 clips are silent",
        "note: a leak",
        *2 * ["note: alone"],
    ]


def test_the_time_to_go_has_validation_and_checkpoints_in_it_and_forgets_a_slow_start(clock: Clock) -> None:
    display = Display(epochs=4, clips_per_epoch=1000)
    assert display._seconds_left() == math.inf  # nothing known
    display.start_epoch(0)
    clock.now += 100  # compiling
    display.advance(1000)
    assert display._seconds_left() == pytest.approx(3 * 100)
    display.validating(500)
    clock.now += 2
    display.advance_validation(250)
    assert display._seconds_left() == pytest.approx(3 * (100 + 4) + 2)
    clock.now += 2
    display.end_epoch(record_of(1), is_best=True)
    assert display._seconds_left() == pytest.approx(3 * (100 + 4))
    clock.now += 1  # its checkpoint
    run_epoch(display, clock, 1)
    run_epoch(display, clock, 2)
    clock.now += 1
    display.start_epoch(3)
    assert display._seconds_left() == pytest.approx(10 + 6)
    clock.now += 5
    display.advance(500)
    assert display._seconds_left() == pytest.approx(5 + 6)
    display.validating(500)
    clock.now += 4
    assert display._seconds_left() == pytest.approx(2)
    clock.now += 30  # longer than ever
    assert display._seconds_left() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (89.5, "90 s"),
        (90, "2 min"),
        (720, "12 min"),
        (7169, "119 min"),
        (7200, "2 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("on_terminal", [True, False])
def test_t25_s31_a_clock_that_goes_backwards_gives_no_negative_number(
    on_terminal: bool,
    clock: Clock,
    terminal: Callable[..., Terminal],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wall = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(wall)))
    stderr = terminal(100) if on_terminal else None
    with Display(epochs=3, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e12) as display:
        for epoch in range(3):
            display.start_epoch(epoch)
            for change in (11, -500, 11, 0, -2000, 30):
                clock.now += change
                display.advance(100)
            clock.now -= 5000
            display.validating(100)
            clock.now -= 50
            display.advance_validation(50)
            assert display._seconds_left() >= 0
            display.end_epoch(record_of(epoch + 1), is_best=True)
            assert display._seconds_left() >= 0
    text = CONTROL.sub("", stderr.getvalue()) if stderr else capsys.readouterr().err
    assert text.count("best") >= 3
    assert not re.search(r"(?<!e)-\d|nan|inf", text)


def test_drawing_takes_no_more_than_a_fiftieth_of_the_time(
    clock: Clock, terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(80)
    cost, drawn = 0.0, [0]

    def refresh(live: Live) -> None:
        drawn[0] += 1
        clock.now += cost

    monkeypatch.setattr(Live, "refresh", refresh)
    display = Display(epochs=1, clips_per_epoch=100_000)
    display.start_epoch(0)
    for cost, most in ((0.0, 40), (0.001, 40), (0.1, 2)):  # noqa: B007  # refresh reads it
        drawn[0], start = 0, clock.now
        while clock.now < start + 10:
            clock.now += 0.01  # a step
            display.advance(1)
        assert most // 2 < drawn[0] <= most + 1


def test_on_a_real_terminal(tmp_path: Path) -> None:
    """60 columns, given by the device alone; the program is another process."""
    program = tmp_path / "program.py"
    program.write_text(
        "from rrtn.train.display import Display\n"
        "with Display(epochs=2, clips_per_epoch=10) as display:\n"
        "    display.start_epoch(0)\n"
        "    display.advance(10)\n"
        f"    display.end_epoch({record_of(1)!r}, is_best=True)\n"
        "    display.start_epoch(1)\n"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    environment = {
        name: value for name, value in os.environ.items() if name not in (*TERM_NAMES, "COLUMNS", "LINES")
    }
    environment |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(program)],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    os.close(theirs)
    output = read_all(ours)
    header, rule, row, progress, *_ = screen_of(output)
    assert done.stdout == b""
    assert header.split() == ["epoch", "loss", "ccc", "ccc_a", "bt", "Val", "CCC", "clips/s"]
    assert len(rule) <= 60
    assert row.split()[:6] == ["1", "0.912", "0.401", "0.450", "812", "0.431"]
    assert progress.startswith("epoch 2/2 Train")


def read_all(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(terminal)
    return b"".join(parts).decode()


def hide_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)


def test_a_missing_tensorboard_is_said_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_tensorboard(monkeypatch)
    command = re.escape('pip install "tensorboard>=2.16"')
    with pytest.raises(
        MissingExtraError, match=rf"^tensorboard \| not installed, and --tensorboard needs it \| {command}$"
    ):
        Display(epochs=1, clips_per_epoch=1, tensorboard=tmp_path / "tensorboard")
    assert list(tmp_path.iterdir()) == []


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_gets_the_record(clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    with Display(epochs=3, clips_per_epoch=1000, tensorboard=tmp_path / "a/b") as display:
        for epoch in range(2):
            run_epoch(display, clock, epoch)
            steps = [step for step, _ in scalars_in(tmp_path / "a/b").get("speed/grad_norm", ())]
            assert steps == [10, 20][: epoch + 1]  # while training goes on
    scalars = {tag: values[0] for tag, values in scalars_in(tmp_path / "a/b").items()}
    assert {step for step, _ in scalars.values()} == {10}
    expected = {"loss/total": 0.9121, "loss/ccc": 0.4014, "loss/ccc_a": 0.4502, "loss/bt": 812.3}
    expected |= {"weights/ccc": 1.0, "weights/ccc_a": 0.98, "weights/bt": 1e-4}
    expected |= {"val_ccc/mean": 0.4312, "val_ccc/Awe": 0.4312, "val_ccc/Joy": 0.1}
    expected |= {"speed/clips_per_s": 100.0, "speed/grad_norm": 2.5}
    assert {tag: value for tag, (_, value) in scalars.items()} == pytest.approx(expected)


def test_tensorboard_shows_no_doubled_points_after_a_resume(clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    with Display(epochs=4, clips_per_epoch=1000, tensorboard=tmp_path) as display:
        for epoch in range(3):
            run_epoch(display, clock, epoch, val_ccc=0.1, twins=False)
    with Display(epochs=4, clips_per_epoch=1000, tensorboard=tmp_path) as display:
        for epoch in (1, 2, 3):  # only the first epoch's checkpoint was whole
            run_epoch(display, clock, epoch, val_ccc=0.2, twins=False)
    scalars = scalars_in(tmp_path)
    assert "loss/bt" not in scalars
    assert scalars["val_ccc/mean"] == [
        (step, pytest.approx(ccc)) for step, ccc in ((10, 0.1), (20, 0.2), (30, 0.2), (40, 0.2))
    ]


def test_n19_a_share_of_the_peak_above_all_of_it_is_not_shown(
    clock: Clock, capsys: pytest.CaptureFixture[str], terminal: Callable[..., Terminal]
) -> None:
    """The peak was measured while other programs ran: 100 clips/s x 4 GFLOP are 40 times as much."""
    with Display(epochs=1, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e10) as display:
        run_epoch(display, clock, 0)
    assert "%" not in capsys.readouterr().err
    screen = terminal(140)
    with Display(epochs=2, clips_per_epoch=1000, flops_per_clip=4e9, peak=1e10) as display:
        run_epoch(display, clock, 0)
        display.start_epoch(1)
        clock.now += 1
        display.advance(100)
    assert "%" not in screen.getvalue()
    assert "peak" not in screen.getvalue()


def test_n19_all_of_the_peak_is_shown(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display(epochs=1, clips_per_epoch=1000, flops_per_clip=4e9, peak=4e11) as display:
        run_epoch(display, clock, 0)
    assert "100% of peak" in capsys.readouterr().err


@pytest.mark.parametrize("on_terminal", [True, False])
def test_n19_a_step_of_many_seconds_is_seen_to_go_on(
    on_terminal: bool, terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody calls `advance`: a thread draws."""
    stderr = terminal(80)
    monkeypatch.setattr(stderr, "isatty", lambda: on_terminal)
    monkeypatch.setattr(display_module, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(display_module, "_FIRST_LINE_SECONDS", 0.02)
    monkeypatch.setattr(display_module, "_REFRESH_SECONDS", 0.02)
    with Display(epochs=1, clips_per_epoch=1000) as display:
        display.start_epoch(0)
        before = stderr.getvalue()
        latest = time.monotonic() + 60
        while stderr.getvalue() == before:
            assert time.monotonic() < latest
            time.sleep(0.01)
    assert "Train" in stderr.getvalue()


@pytest.mark.parametrize("width", [80, 60])
def test_n19_a_long_name_of_a_part_costs_no_time(
    width: int, clock: Clock, terminal: Callable[..., Terminal]
) -> None:
    """Where there is no room for the part's name, the bar does without it."""
    stderr = terminal(width)
    part = Part(label="11/27 resnet18-rrtn-ruwl seed 2", later=2.0)
    with Display(epochs=60, clips_per_epoch=1000, part=part) as display:
        display.start_epoch(2)
        clock.now += 2
        display.advance(400)
        line = stderr.screen()[0]
    assert "epoch 3/60 Train" in line
    assert "left 5 min (15 min in all)" in line
    assert len(line) <= width
