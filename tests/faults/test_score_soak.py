"""S1, S5, S6, S28 at length: 20,000 files through kills, fuzzed audio, and 200,000 files in no more
memory than 2,000.

Real processes and real SIGKILL; see docs/reliability.md. Minutes, so under `make soak`.
RRTN_SOAK=0.1 is a tenth of it.
"""

import contextlib
import csv
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.runtime.audio.codes import ERROR_CODES
from rrtn.runtime.audio.file_names import path_from_cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SCALE = float(os.environ.get("RRTN_SOAK", "1"))
FILES, KILLS, FUZZED = round(20_000 * SCALE), round(50 * SCALE), round(20_000 * SCALE)
FEW, MANY = 2_000, round(200_000 * SCALE)
EARLY = 1_000  # the number of a file near the start
BAD_EVERY = 50
LINKS = 10_000  # of one inode; file systems allow some 60,000
Print = Callable[[str], None]
Start = Callable[..., Any]  # conftest.py: arguments -> the running process


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Print:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\nsoak: {text}")

    return say


@pytest.fixture
def start(start_process: Start) -> Start:
    """`rrtn score ...` in the test's own folder."""
    return lambda *arguments, **options: start_process("score", *arguments, fresh=True, **options)


def ended(running: Any) -> Any:
    """However long it takes; never with a traceback."""
    found = running.wait(3_000)
    assert "Traceback" not in found.err, found.err
    return found


def files_of(table: Path) -> list[bytes]:
    with table.open(encoding="utf-8", newline="") as file:
        return [path_from_cell(record["file"]) for record in csv.DictReader(file)]


def errors_of(table: Path) -> Counter[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return Counter(record["error"] for record in csv.DictReader(file))


# S1, S5, S3, S6


def noise(samples: int) -> Any:
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples)


def audio(path: Path, samples: Any, subtype: str | None = None) -> bytes:
    soundfile.write(path, samples, 16_000, subtype=subtype)
    return path.read_bytes()


def patched(content: bytes, offset: int, patch: bytes) -> bytes:
    return content[:offset] + patch + content[offset + len(patch) :]


def with_total_samples(flac: bytes, total: int) -> bytes:
    return patched(flac, 18, (int.from_bytes(flac[18:26]) >> 36 << 36 | total).to_bytes(8))


def bad_contents(folder: Path) -> dict[str, bytes]:
    """The kinds of the table in the fault catalogue; some of them are scored all the same."""
    folder.mkdir()
    whole, flac = audio(folder / "a.wav", noise(8_000)), audio(folder / "a.flac", noise(8_000))
    return {
        "empty": b"",
        "text": b"this is no audio\n" * 20,
        "cut.wav": whole[: len(whole) // 2],
        "header": audio(folder / "b.wav", noise(0)),
        "streamed": patched(whole, whole.index(b"data") + 4, b"\xf0\xff\xff\xff"),
        "nan": audio(folder / "c.wav", np.where(np.arange(8_000) == 999, np.nan, noise(8_000)), "FLOAT"),
        "infinite": audio(folder / "d.wav", np.where(np.arange(8_000) == 999, np.inf, noise(8_000)), "FLOAT"),
        "cut.flac": flac[: len(flac) // 2],
        "unknown": with_total_samples(flac, 0),
        "billions": with_total_samples(flac, 2**36 - 1),
        "flipped": patched(flac, len(flac) // 2, bytes([flac[len(flac) // 2] ^ 1])),
        "bomb": audio(folder / "e.flac", np.zeros(60 * 16_000)),
        "channels": patched(whole, 22, b"\xff\xff"),
        "rate 0": patched(whole, 24, bytes(4)),
        "rate max": patched(whole, 24, b"\xff" * 4),
        "silent": audio(folder / "f.wav", np.zeros(8_000)),
    }


def make_bad(path: bytes, number: int, contents: dict[str, bytes]) -> None:
    special = number % (len(contents) + 3) - len(contents)
    if special == 0:
        os.mkfifo(path)
    elif special == 1:
        os.symlink(b"gone", path)
    elif special == 2:
        with contextlib.chdir(os.path.dirname(path)), socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.basename(path))
    else:
        Path(os.fsdecode(path)).write_bytes([*contents.values()][number % (len(contents) + 3)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """FILES files, 2% of them bad, some names of any bytes."""
    contents = bad_contents(tmp_path / "kinds")
    good = [tmp_path / f"{i}.wav" for i in range(50)]
    for i, path in enumerate(good):
        audio(path, noise(800 + 10 * i))
    for number in range(FILES):
        folder = tmp_path / "in" / f"{number // 1_000:02}"
        folder.mkdir(parents=True, exist_ok=True)
        name = b"caf\xe9\n=%06d.wav" % number if number % 1_000 == 7 else b"%06d.wav" % number
        path = os.path.join(os.fsencode(folder), name)
        if number % BAD_EVERY == 25:
            make_bad(path, number // BAD_EVERY, contents)
        else:
            os.link(good[number % len(good)], path)
    return tmp_path


def test_s1_s3_s5_s6_killed_at_random_moments(
    folder: Path, tiny_model: Path, start: Start, say: Print
) -> None:
    """Until there are KILLS kills; in each table one full disk, and one other writer that is refused."""
    begin, rng = time.monotonic(), np.random.default_rng(0)
    command = ("in", "-m", tiny_model, "--out", "t.csv")
    assert ended(start("in", "-m", tiny_model, "--out", "whole.csv")).code == 3
    whole, seconds = (folder / "whole.csv").read_bytes(), time.monotonic() - begin
    found = files_of(folder / "whole.csv")
    assert len(found) == len(set(found)) == FILES
    kills = starts = tables = refused = full = 0
    while kills < KILLS:
        tables += 1
        disk = int(rng.integers(5, 4 * FILES // 512))
        while True:
            starts += 1
            fails = {"RRTN_FAILPOINT": f"write.*:enospc:{disk}"} if full < tables and starts % 3 == 0 else {}
            running = start(*command, **fails)
            if refused < tables and (folder / ".t.csv.rrtn").exists():
                time.sleep(1.0)
                if running.process.poll() is None:
                    refused += ended(start(*command)).code == 2
            if not fails and kills < KILLS:
                time.sleep(rng.uniform(0.2, 0.25 * seconds))
                running.kill()
            code, _, err = ended(running)
            assert code in ((4, 3) if fails else (-signal.SIGKILL, 3)), err
            kills += code == -signal.SIGKILL
            full += code == 4
            if code == 3:
                break
            assert (
                not (folder / "t.csv").exists() or (folder / "t.csv").read_bytes() == whole
            )  # killed after the rename
        assert (folder / "t.csv").read_bytes() == whole
        assert not [path for path in folder.glob(".*") if path.suffix == ".tmp"]
        shutil.rmtree(folder / ".t.csv.rrtn")
        (folder / "t.csv").unlink()
    assert min(refused, full) >= 1
    say(
        f"{FILES} files, {FILES // BAD_EVERY} of them bad, {seconds:.0f} s undisturbed: {tables} "
        f"tables, {starts} starts, "
        f"{kills} kills, {full} times a full disk, {refused} second writers refused, "
        f"{time.monotonic() - begin:.0f} s: "
        f"all tables equal byte for byte"
    )


# Fuzzing

SUFFIXES = ("wav", "flac", "ogg", "mp3", "aiff")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes, half of them near the start, where the headers are."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not changed:
            break
        reach = min(len(changed), 128) if rng.random() < 0.5 else len(changed)
        at, length = int(rng.integers(reach)), int(rng.integers(1, 64))
        match rng.integers(7):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at : at + length] = rng.bytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = rng.bytes(length)
            case 4:
                del changed[at:]
            case 5:
                changed[at : at + 4] = [
                    b"\xff\xff\xff\xff",
                    b"\0\0\0\0",
                    b"\x7f\xff\xff\xff",
                    b"\xff\xff\xff\x7f",
                ][at % 4]
            case _:
                changed[at:at] = changed[at : at + length]
    return bytes(changed)


def test_s6_s20_fuzzed_audio_is_a_row_each(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path], start: Start, say: Print
) -> None:
    """No crash of the scoring process, no hang, no missing row."""
    seeds = {
        suffix: [audio(tmp_path / f"{n}.{suffix}", noise(n)) for n in (1, 700, 5_000)] for suffix in SUFFIXES
    }
    seeds["mp3"] += [path.read_bytes() for path in real_clips if path.suffix == ".mp3"][:2]
    seeds["wav"] += [
        audio(tmp_path / f"{subtype}.wav", noise(700), subtype) for subtype in ("FLOAT", "ULAW", "IMA_ADPCM")
    ]
    rng = np.random.default_rng(0)
    for number in range(FUZZED):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        path = tmp_path / "in" / f"{number // 1_000:02}" / f"{number:06}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutated(seeds[suffix][int(rng.integers(len(seeds[suffix])))], rng))
    begin = time.monotonic()
    run = ended(start("in", "-m", tiny_model, "--out", "t.csv", "--timeout", 20, "--json"))
    assert run.code in (0, 3), run.err
    seconds = time.monotonic() - begin
    found = files_of(tmp_path / "t.csv")
    assert len(found) == len(set(found)) == FUZZED
    errors = errors_of(tmp_path / "t.csv")
    assert errors.keys() <= {*ERROR_CODES, ""}
    assert errors[""] > FUZZED / 100  # or else nothing was decoded
    say(
        f"{FUZZED} mutated files in {seconds:.0f} s: "
        + ", ".join(f"{code or 'scored'} {n}" for code, n in errors.most_common())
    )


# S28


def sparse(folder: Path, files: int) -> Path:
    """Headers without samples, what is no audio, and a few that can be scored."""
    folder.mkdir()
    for number in range(files):
        kind = "good" if number % 50 == 0 else "bad" if number % 2 else "header"
        source = folder.parent / f"{folder.name}.{kind}.{number // LINKS}"
        if not source.exists():
            source.write_bytes(b"no audio") if kind == "bad" else audio(
                source.with_suffix(".wav"), noise(160 * (kind == "good"))
            )
            if kind != "bad":
                source.with_suffix(".wav").rename(source)
        os.link(source, folder / f"{number:06}.wav")
    return folder


def peak(process: "subprocess.Popen[bytes]") -> float:
    """Waits for its end; -> MiB, the highest sum over all processes of the session."""
    highest = 0
    while process.poll() is None:
        now = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, AttributeError):
                fields = re.match(r"\d+ \(.*\) (.*)", status.read_text())[1].split()  # type: ignore[index]
                now += int(fields[21]) if int(fields[3]) == process.pid else 0
        highest = max(highest, now)
        time.sleep(0.05)
    return highest * resource.getpagesize() / 2**20


def first_row(folder: Path, model: Path, start: Start) -> float:
    """Seconds from the start to the first row, which comes although an early file is never read to
    its end.
    """
    begin = time.monotonic()
    hangs = f"read.{EARLY:06}.wav:sleep:all"
    running = start(folder.name, "-m", model, "--timeout", 3600, PYTHONUNBUFFERED=1, RRTN_FAILPOINT=hangs)
    while (shown := running.out.read_bytes()).count(b"\n") < 2:
        assert running.process.poll() is None, running.err.read_text()
        time.sleep(0.01)
    seconds = time.monotonic() - begin
    running.kill()
    assert shown.splitlines()[1].startswith(os.fsencode(folder.name) + b"/000000.wav,0.000,")
    return seconds


def test_s28_many_files_take_no_more_memory_than_few(
    tmp_path: Path, tiny_model: Path, start: Start, say: Print
) -> None:
    """Memory O(shard), the first result long before the last, no O(N^2)."""
    figures = {}
    for files in (FEW, MANY):
        folder = sparse(tmp_path / f"in{files}", files)
        begin = time.monotonic()
        running = start(folder.name, "-m", tiny_model, "--out", f"{files}.csv", "--json")
        figures[files] = peak(running.process)
        run = ended(running)
        assert run.code == 3
        assert run.summary["files"] == files
        assert len(files_of(tmp_path / f"{files}.csv")) == files
        figures[-files] = time.monotonic() - begin
    first = first_row(tmp_path / f"in{MANY}", tiny_model, start)
    say(
        f"{FEW} files: {figures[FEW]:.0f} MiB, {figures[-FEW]:.1f} s; {MANY} files: {figures[MANY]:.0f} MiB, "
        f"{figures[-MANY]:.1f} s, the first row after {first:.1f} s"
    )
    assert figures[MANY] < 1.1 * figures[FEW]
    assert figures[-MANY] / figures[-FEW] < MANY / FEW * 10  # of N^2, it would be MANY / FEW
