"""Rows S1 to S5, S16 and S19 to S32 of the fault catalogue: `rrtn score` is killed, starved and disturbed.

Real processes, each with its decoders in a process group of its own.
"""

import contextlib
import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn_processes import Server

RRTN = (sys.executable, "-m", "rrtn")
FILES = 900  # three shards, by their names: of 450, 407 and 43
UNENDING = "read.00880.wav:sleep:all"  # in the last of them
PIPE = 4096  # bytes, the least that a pipe can have
SEED = int(os.environ.get("RRTN_TEST_SEED", "0"))


Start = Callable[..., Any]  # conftest.py: arguments -> the running process
Rrtn = Callable[..., Any]  # arguments -> how it ended


@pytest.fixture
def start(start_process: Start) -> Start:
    """`rrtn score ...` in the test's own folder."""
    return lambda *arguments, **options: start_process("score", *arguments, **options)


@pytest.fixture
def score(start: Start) -> Rrtn:
    """The same, to its end."""
    return lambda *arguments, **options: start(*arguments, **options).wait()


@pytest.fixture
def noises(tmp_path: Path) -> list[Path]:
    """Twelve contents."""
    return write_noises(tmp_path)


def write_noises(folder: Path) -> list[Path]:
    (folder / "noises").mkdir()
    paths = [folder / "noises" / f"{i:02}.wav" for i in range(12)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, 800 + 40 * i), 16_000)
    return paths


@pytest.fixture
def many(tmp_path: Path, noises: list[Path]) -> Path:
    """FILES files, every hundredth of them bad."""
    return write_many(tmp_path, noises)


def write_many(folder: Path, noises: list[Path]) -> Path:
    many = folder / "in"
    many.mkdir()
    (folder / "bad").write_bytes(b"no audio")
    for i in range(FILES):
        os.link(folder / "bad" if i % 100 == 50 else noises[i % 12], many / f"{i:05}.wav")
    return many


@pytest.fixture(scope="module")
def undisturbed(
    runtime_server: Server, tiny_model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of an undisturbed run over files like those of `many`, to be left as it is."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_many(folder, write_noises(folder))
    model = tiny_model_of(folder / "tiny.onnx", FrontendSpec())
    ended = runtime_server.start("score", "in", "-m", model, "--out", "whole.csv", cwd=folder).wait()
    assert ended.code == 3, ended.err
    assert len(records(folder / "whole.csv")) == FILES
    return folder


@pytest.fixture
def whole(undisturbed: Path, many: Path) -> bytes:
    """The table of an undisturbed run over the files of `many`."""
    return (undisturbed / "whole.csv").read_bytes()


def records(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def parts(table: Path) -> list[Path]:
    return sorted(table.parent.glob(f".{table.name}.rrtn/*.part"))


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".tmp"]


def until(condition: Callable[[], object]) -> None:
    latest = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < latest, "it never comes"
        time.sleep(0.005)


def reads_one_of(paths: list[Path], running: Any) -> bool:
    """Whether a decoder has one of the files open."""
    opened = set()
    for descriptor in (link for pid in running.decoders() for link in Path(f"/proc/{pid}/fd").glob("*")):
        with contextlib.suppress(OSError):
            opened.add(descriptor.readlink())
    return not opened.isdisjoint(paths)


def with_other_weights(model: Path, path: Path) -> Path:
    proto = onnx.load(model)
    weights = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights * np.float32(1.5), "weights"))
    path.write_bytes(sealed(proto.SerializeToString()))
    return path


# S1


@pytest.mark.slow
def test_s1_killed_at_random_moments(tmp_path: Path, tiny_model: Path, start: Start, whole: bytes) -> None:
    """Union of parts = each input exactly once; final table byte-identical to an uninterrupted run."""
    rng, kills = np.random.default_rng(SEED), 0
    while True:
        # the first one is killed for sure
        running = start("in", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT="" if kills else UNENDING)
        if kills < 6:
            if not kills:
                until((tmp_path / ".t.csv.rrtn/job.json").exists)
            time.sleep(rng.uniform(0, 0.5))
            running.kill()
        ended = running.wait()
        if ended.code == 3:
            break
        assert ended.code == -signal.SIGKILL, ended.err
        assert (
            not (tmp_path / "t.csv").exists() or (tmp_path / "t.csv").read_bytes() == whole
        )  # killed after the rename
        kills += 1
    assert kills >= 1
    assert (tmp_path / "t.csv").read_bytes() == whole
    assert temporary(tmp_path) == []


def test_s1_killed_at_places_of_a_write(
    tmp_path: Path, tiny_model: Path, score: Rrtn, undisturbed: Path, whole: bytes
) -> None:
    """The sixth place of each run is in its second part. When all parts are there, the first place is of the
    table, the next four of job.json, where its hash is noted, and the others of the table again.
    """

    def is_killed(nth: int) -> bool:
        ended = score("in", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT=f"write.*:sigkill:{nth}")
        return ended.code == -signal.SIGKILL

    assert is_killed(3)  # of job.json
    while len(parts(tmp_path / "t.csv")) < len(parts(undisturbed / "whole.csv")):
        assert is_killed(6)
    assert all(map(is_killed, (1, 4, 5)))
    assert is_killed(3)  # the hash is there
    assert not (tmp_path / "t.csv").exists()
    assert is_killed(4)
    assert (tmp_path / "t.csv").read_bytes() == whole
    ended = score("in", "-m", tiny_model, "--out", "t.csv", "--json")
    assert (ended.code, ended.summary["scored_now"]) == (3, 0)
    assert (tmp_path / "t.csv").read_bytes() == whole
    assert temporary(tmp_path) == []


def test_s1_killed_alone_its_decoders_end_too(
    tmp_path: Path, tiny_model: Path, noises: list[Path], start: Any
) -> None:
    """As the OOM killer does it; one of them hangs in a file."""
    running = start("noises", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT="read.03.wav:sleep:all")
    until(lambda: reads_one_of(noises[3:4], running))
    running.kill(group=False)
    until(lambda: not running.decoders())


# S2


@pytest.mark.parametrize(
    ("number", "code", "group"),
    [
        pytest.param(signal.SIGTERM, 143, False, id="kill"),
        pytest.param(signal.SIGINT, 130, True, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, True, id="SIGTERM to all", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, False, id="SIGINT alone", marks=pytest.mark.slow),
    ],
)
def test_s2_a_signal_stops_and_the_same_command_goes_on(
    tmp_path: Path, many: Path, tiny_model: Path, start: Any, number: signal.Signals, code: int, group: bool
) -> None:
    """Commits finished shards, 143/130, resume. `docker stop` and kill reach the process, Ctrl-C all."""
    running = start("in", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT=UNENDING)
    until(lambda: parts(tmp_path / "t.csv"))
    running.kill(number, group=group)
    ended = running.wait()
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    until(lambda: not running.decoders())
    assert not (tmp_path / "t.csv").exists()
    kept = len(parts(tmp_path / "t.csv"))
    assert kept >= 1
    again = start("in", "-m", tiny_model, "--out", "t.csv", "--json").wait()
    assert again.code == 3, again.err
    assert 0 < again.summary["scored_now"] < FILES
    assert len(records(tmp_path / "t.csv")) == FILES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_s2_a_decoder_that_hangs_delays_nothing(
    tmp_path: Path, tiny_model: Path, noises: list[Path], start: Any, number: signal.Signals
) -> None:
    running = start("noises", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT="read.*:sleep:all")
    until(lambda: reads_one_of(noises, running))
    running.kill(number, group=False)
    assert running.wait().code == 128 + number  # each would sleep for an hour
    assert running.decoders() == []


# S3


@pytest.mark.parametrize("nth", [1, 9])
def test_s3_a_full_disk_at_a_write(
    tmp_path: Path, many: Path, tiny_model: Path, score: Rrtn, nth: int
) -> None:
    """No torn part visible, exit 4, resume after space freed."""
    ended = score("in", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT=f"write.*:enospc:{nth}")
    assert ended.code == 4
    assert re.search(r"\.t\.csv\.rrtn/.* \| No space left on device", ended.error)
    assert temporary(tmp_path) == []
    again = score("in", "-m", tiny_model, "--out", "t.csv", "--json")
    assert again.code == 3
    assert (again.summary["scored_now"] < FILES) == (nth > 8)
    assert len(records(tmp_path / "t.csv")) == FILES


def test_s3_a_full_disk_at_the_table(
    tmp_path: Path, noises: list[Path], tiny_model: Path, score: Rrtn
) -> None:
    """The table of before stays; what is scored is kept."""
    assert score("noises", "-m", tiny_model, "--out", "t.csv").code == 0
    before = (tmp_path / "t.csv").read_bytes()
    noises[3].unlink()
    for nth in (5, 6, 7, 8):  # the first four are the part's
        ended = score(
            "noises",
            "-m",
            tiny_model,
            "--out",
            "t.csv",
            RRTN_FAILPOINT=f"write.*:enospc:{nth if nth == 5 else nth - 4}",
        )
        assert ended.code == 4
        assert "No space left on device" in ended.error
        if nth < 8:  # 8 is after the rename
            assert (tmp_path / "t.csv").read_bytes() == before
        assert temporary(tmp_path) == []
    again = score("noises", "-m", tiny_model, "--out", "t.csv", "--json")
    assert (again.code, again.summary["scored_now"], again.summary["files"]) == (0, 0, 11)


def test_s3_a_file_larger_than_the_limit(tmp_path: Path, tiny_model: Path, score: Rrtn) -> None:
    """RLIMIT_FSIZE: 2,000 windows of a file with a long name; the part holds none and is below it,
    the table is not.
    """
    folder = tmp_path / ("x" * 250) / ("y" * 250)
    folder.mkdir(parents=True)
    path = folder / f"{'z' * 200}.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 320_000), 16_000)
    command = (
        path.relative_to(tmp_path),
        "-m",
        tiny_model,
        "--window",
        0.02,
        "--hop",
        0.01,
        "--workers",
        2,
        "--out",
        "t.csv",
        "--json",
    )
    limit = 1_200_000  # the memory that a decoder shares is below it
    set_limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    ended = score(*command, before=set_limit)
    assert ended.code == 4
    assert "t.csv | File too large" in ended.error
    assert temporary(tmp_path) == []
    again = score(*command)
    assert (again.code, again.summary["scored_now"]) == (0, 0)
    assert (tmp_path / "t.csv").stat().st_size > limit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 KiB, at first."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "rrtn-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_s3_a_disk_that_is_really_full(small_disk: Path, tiny_model: Path, whole: bytes, score: Rrtn) -> None:
    """Room for one or two parts; then for all parts, but not for the table beside them; then for all."""
    command = ("in", "-m", tiny_model, "--out", "disk/t.csv", "--json")
    needed = 0
    for kilobytes in (40, 100):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(small_disk)], check=True)
        ended = score(*command)
        assert ended.code == 4
        assert re.search(r"disk/.* \| No space left on device", ended.error)
        assert temporary(small_disk) == []
        assert not (small_disk / "t.csv").exists()
        assert len(parts(small_disk / "t.csv")) > needed
        needed = len(parts(small_disk / "t.csv"))
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    ended = score(*command)
    assert ended.code == 3
    assert ended.summary["scored_now"] < FILES
    assert (small_disk / "t.csv").read_bytes() == whole


# S4


@pytest.mark.parametrize(
    ("out", "code", "message"),
    [
        ("folder.csv", 2, "is not a regular file"),
        ("gone/t.csv", 2, "is no folder"),
        ("file/t.csv", 2, "is no folder"),
        ("t.txt", 2, "expected .csv, .jsonl or .parquet"),
        ("/proc/t.csv", 4, "expected a folder with free space that can be written to"),
    ],
)
def test_s4_a_place_that_cannot_be_written_to(
    tmp_path: Path, score: Rrtn, out: str, code: int, message: str
) -> None:
    """Fails before the model is looked for: there is none."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    ended = score("in", "-m", "gone.onnx", "--out", out)
    assert ended.code == code
    assert out in ended.error
    assert message in ended.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_s4_a_read_only_file_system(tmp_path: Path, small_disk: Path, score: Rrtn) -> None:
    """Fails before the model is loaded."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = score("in", "-m", "gone.onnx", "--out", "disk/t.csv")
    assert ended.code == 4
    assert "disk/t.csv | Read-only file system" in ended.error


# S5


def test_s5_the_second_process_is_refused(
    tmp_path: Path, tiny_model: Path, noises: list[Path], start: Any, score: Rrtn
) -> None:
    """Never duplicate rows. A killed process holds no lock, whatever its decoders do."""
    command = ("noises", "-m", tiny_model, "--out", "t.csv")
    first = start(*command, RRTN_FAILPOINT="read.03.wav:sleep:all")
    until((tmp_path / ".t.csv.rrtn" / "job.json").exists)
    for flags in ((), ("--overwrite",)):
        second = score(*command, *flags)
        assert second.code == 2
        assert f"process {first.process.pid} on " in second.error
        assert "one process at a time" in second.error
    assert score(*command[:-1], "u.csv").code == 0
    first.kill(group=False)
    first.process.wait()
    assert score(*command).code == 0
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "u.csv").read_bytes()


# S16


def test_s16_links(tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn) -> None:
    """Terminates; links to folders are not followed unless they are named; a link to a file is a file."""
    folder, far = tmp_path / "tree", tmp_path / "far"
    (folder / "sub").mkdir(parents=True)
    far.mkdir()
    shutil.copy(noises[0], far / "far.wav")
    shutil.copy(noises[1], folder / "sub" / "a.wav")
    for name, target in (
        ("loop", "."),
        ("up", ".."),
        ("root", "/"),
        ("out", far),
        ("b.wav", "sub/a.wav"),
        ("c.wav", "gone"),
    ):
        (folder / name).symlink_to(target)
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "d.wav").symlink_to("d.wav")
    ended = score("tree", "-m", tiny_model, "--json")
    assert ended.code == 3
    rows = [(row["file"], row["error"] or "") for row in ended.summary["rows"]]
    assert rows == [
        ("tree/b.wav", ""),
        ("tree/c.wav", "missing"),
        ("tree/d.wav", "missing"),
        ("tree/sub/a.wav", ""),
    ]
    named = score("tree/out", "-m", tiny_model, "--json")
    assert [row["file"] for row in named.summary["rows"]] == ["tree/out/far.wav"]


# S19


def test_s19_storage_that_fails_stops_and_goes_on_later(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn, watch: Callable[[Path], Any]
) -> None:
    """Retry 3x, then stop exit 4 (not "bad file")."""
    failing = watch(noises[3])
    ended = score("noises", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT="read.03.wav:eio:all")
    assert ended.code == 4
    assert failing.opened() == 4
    assert "noises/03.wav' | Input/output error" in ended.error
    assert not (tmp_path / "t.csv").exists()
    assert score("noises", "-m", tiny_model, "--out", "t.csv", RRTN_FAILPOINT="read.03.wav:eio:1").code == 0
    assert {record["error"] for record in records(tmp_path / "t.csv")} == {""}


# S20, S21, S22


@pytest.mark.parametrize(
    ("action", "flags", "code"),
    [
        ("sigsegv", (), "crashed"),
        ("sigkill", (), "crashed"),
        ("sleep", ("--timeout", "2"), "timeout"),
        ("memory", (), "out_of_memory"),
    ],
)
def test_s20_s21_s22_a_file_that_ends_or_blocks_its_decoder(
    tmp_path: Path,
    tiny_model: Path,
    noises: list[Path],
    score: Rrtn,
    action: str,
    flags: tuple[str, ...],
    code: str,
) -> None:
    """Pool survives, file quarantined after 2 tries, others scored; per-file limit, killed, `timeout` row."""
    assert score("noises", "-m", tiny_model, "--out", "t.csv").code == 0
    ended = score(
        "noises",
        "-m",
        tiny_model,
        "--out",
        "u.csv",
        *flags,
        "--json",
        RRTN_FAILPOINT=f"read.03.wav:{action}:all",
    )
    assert ended.code == 3, ended.err
    assert ended.summary["errors"] == {code: 1}
    expected, found = records(tmp_path / "t.csv"), records(tmp_path / "u.csv")
    assert (found[3]["file"], found[3]["Joy"], found[3]["error"]) == ("noises/03.wav", "", code)
    assert found[:3] + found[4:] == expected[:3] + expected[4:]


def test_s22_decoders_that_are_killed_again_and_again(
    tmp_path: Path, tiny_model: Path, start: Any, whole: bytes
) -> None:
    """As S20: none of the files is lost, or blamed for one death."""
    running = start("in", "-m", tiny_model, "--out", "t.csv")
    kills = 0
    while running.process.poll() is None:
        time.sleep(0.005)
        if len(parts(tmp_path / "t.csv")) >= kills:
            for decoder in running.decoders()[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(decoder, signal.SIGKILL)
                    kills += 1
    ended = running.wait()
    assert ended.code == 3, ended.err
    assert kills >= 1
    assert (tmp_path / "t.csv").read_bytes() == whole


# S23


def test_s23_too_little_memory_for_a_batch(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn
) -> None:
    """Batch halves and retries the same inputs, order kept, scores equal to small-batch run; gives
    up at 1.
    """
    assert score("noises", "-m", tiny_model, "--out", "t.csv", "--batch-size", 1).code == 0
    command = ("noises", "-m", tiny_model, "--out", "u.csv", "--batch-size", 16, "--json")
    ended = score(*command, RRTN_FAILPOINT="model.*:memory:all")
    assert ended.code == 5
    assert "one clip" in ended.error
    assert not (tmp_path / "u.csv").exists()
    ended = score(*command, RRTN_FAILPOINT="model.[!1]:memory:all")  # 16 fits
    assert (ended.code, ended.summary["batch_size"]) == (0, 16)
    ended = score(*command, "--overwrite", RRTN_FAILPOINT="model.??:memory:all")
    assert (ended.code, ended.summary["batch_size"]) == (0, 8)
    assert records(tmp_path / "u.csv") == records(tmp_path / "t.csv")


# S24


@pytest.mark.parametrize("fault", ["stamp", "changed", "gone"])
def test_s24_a_model_that_does_not_fit_is_refused_before_anything_is_read(
    tmp_path: Path, tiny_model: Path, score: Rrtn, fault: str
) -> None:
    """Exit 5 before touching inputs: the list of them is a pipe into which nobody writes."""
    os.mkfifo(tmp_path / "list")
    (tmp_path / "bundle").mkdir()
    shutil.copy(tiny_model, tmp_path / "bundle" / tiny_model.name)
    stamp = {"flavour": "tensorrt", "version": "0.0.1", "targets": [90], "driver": None}
    manifest = load_bundle(tiny_model).manifest()
    engine = {
        **manifest["variants"][0],
        "name": "trt-fp16",
        "file": "model.engine",
        "kind": "engine",
        "stamp": stamp,
    }
    manifest["variants"].append(engine)
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(manifest))
    if fault == "changed":
        with (tmp_path / "bundle" / tiny_model.name).open("r+b") as file:
            file.write(b"\1")
    if fault == "gone":
        (tmp_path / "bundle" / tiny_model.name).unlink()
    backend = "trt" if fault == "stamp" else "cpu"
    ended = score("--list", "list", "-m", "bundle", "--backend", backend, "--out", "t.csv")
    assert ended.code == 5
    assert {"stamp": "built by tensorrt 0.0.1", "changed": "sha256", "gone": "No such file"}[
        fault
    ] in ended.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "list", "tiny.onnx"]


# S25


def test_s25_a_table_keeps_the_variant_that_it_began_with(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn
) -> None:
    """Where nobody names another one: `auto` may take another one after an update, or on another machine."""
    (tmp_path / "bundle").mkdir()
    shutil.copy(tiny_model, tmp_path / "bundle" / tiny_model.name)
    other = with_other_weights(tiny_model, tmp_path / "bundle" / "other.onnx")
    manifest, second = load_bundle(tiny_model).manifest(), load_bundle(other).manifest()["variants"][0]
    name = manifest["variants"][0]["name"]
    manifest["variants"].append({**second, "name": "int8", "file": "other.onnx"})
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(manifest))

    def scored(*flags: object) -> Any:
        return score("noises", "-m", "bundle", "--out", "t.csv", "--json", *flags)

    assert scored("--variant", "int8").summary["variant"] == "int8"
    before = (tmp_path / "t.csv").read_bytes()
    shutil.copy(noises[0], tmp_path / "noises" / "more.wav")
    ended = scored()
    assert (ended.code, ended.summary["variant"], ended.summary["scored_now"] > 0) == (0, "int8", True)
    assert (tmp_path / "t.csv").read_bytes().startswith(before[:100])
    ended = scored("--variant", name)
    assert ended.code == 2
    assert "begun with model " in ended.out
    assert scored("--overwrite").summary["variant"] == name
    assert scored().summary["variant"] == name


def test_s25_another_model_or_other_settings(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn
) -> None:
    """Refused (manifest has model hash, preprocessing hash, rrtn version); the table stays, until
    --overwrite.
    """
    other = with_other_weights(tiny_model, tmp_path / "other.onnx")
    assert score("noises", "-m", tiny_model, "--out", "t.csv").code == 0
    before = (tmp_path / "t.csv").read_bytes()
    for flags, difference in (
        (("-m", other), "model "),
        (("-m", tiny_model, "--window", 1), "window none, now 1.0"),
        (("-m", tiny_model, "--batch-size", 2), "batch_size 16, now 2"),
        (("-m", tiny_model, "--allow-truncated"), "allow_truncated False, now True"),
    ):
        ended = score("noises", *flags, "--out", "t.csv")
        assert ended.code == 2
        assert f"t.csv | begun with {difference}" in ended.error
        assert (tmp_path / "t.csv").read_bytes() == before
    assert score("noises", "-m", tiny_model, "--workers", 1, "--timeout", 9, "--out", "t.csv").code == 0
    assert (tmp_path / "t.csv").read_bytes() == before
    assert score("noises", "-m", other, "--out", "t.csv", "--overwrite").code == 0
    assert (tmp_path / "t.csv").read_bytes() != before


# S26


def test_s26_files_that_come_go_and_change(
    tmp_path: Path, tiny_model: Path, score: Rrtn, many: Path, noises: list[Path]
) -> None:
    """New ones are scored, those that are gone have no row; all other shards are kept."""
    assert score("in", "-m", tiny_model, "--out", "t.csv").code == 3
    (many / "00007.wav").unlink()
    shutil.copy(noises[3], many / "00600a.wav")
    (many / "00850.wav").unlink()
    shutil.copy(noises[5], many / "00850.wav")
    ended = score("in", "-m", tiny_model, "--out", "t.csv", "--json")
    fresh = score("in", "-m", tiny_model, "--out", "u.csv", "--json")
    assert 3 <= ended.summary["scored_now"] < FILES == fresh.summary["scored_now"]
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "u.csv").read_bytes()
    assert len(parts(tmp_path / "t.csv")) == len(parts(tmp_path / "u.csv"))


# S27


def test_s27_a_part_that_is_torn(tmp_path: Path, tiny_model: Path, many: Path, score: Rrtn) -> None:
    """Truncated, or a bit flipped: hash/footer check, re-scored: that part alone."""
    assert score("in", "-m", tiny_model, "--out", "t.csv").code == 3
    whole, part = (tmp_path / "t.csv").read_bytes(), parts(tmp_path / "t.csv")[1]
    content = part.read_bytes()
    for torn in (content[:-9], content[:700] + bytes([content[700] ^ 4]) + content[701:]):
        part.write_bytes(torn)
        ended = score("in", "-m", tiny_model, "--out", "t.csv", "--json")
        assert ended.code == 3
        assert 0 < ended.summary["scored_now"] < FILES
        assert (tmp_path / "t.csv").read_bytes() == whole
        assert part.read_bytes() == content


# S29


@pytest.mark.parametrize("workers", [2, 8])
def test_s29_few_open_files(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn, workers: int
) -> None:
    """RLIMIT_NOFILE = 64: works."""
    few = {"before": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"}
    ended = score("noises", "-m", tiny_model, "--workers", workers, "--out", "t.csv", **few)
    assert ended.code == 0, ended.err


def test_s29_too_few_open_files(tmp_path: Path, tiny_model: Path, noises: list[Path], start: Any) -> None:
    """One line, and nothing left."""
    few = {"before": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"}
    running = start("noises", "-m", tiny_model, "--workers", 60, "--batch-size", 1, "--out", "t.csv", **few)
    ended = running.wait()
    assert ended.code == 4
    assert "Too many open files" in ended.error
    until(lambda: not running.decoders())


# S30


def into_a_closed_pipe(*arguments: object, cwd: Path, lines: int, **env: str) -> tuple[int, str]:
    """`rrtn score ... | head -n lines`, where the pipe holds less than there is to write; -> exit
    code, stderr.
    """
    command = [*RRTN, "score", *map(str, arguments)]
    environment = {name: value for name, value in {**os.environ, **env}.items() if value}
    descriptor, stdout = os.pipe()
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)
    reader = open(descriptor, "rb")
    if not lines:
        reader.close()
    with subprocess.Popen(
        command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(stdout)
        for _ in range(lines):
            reader.readline()
        reader.close()
        assert process.stderr
        error = process.stderr.read().decode()
    return process.returncode, error


@pytest.mark.parametrize(
    ("lines", "unbuffered"),
    [(0, ""), (1, "1"), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0, "1"), (1, "")))],
)
def test_s30_the_reader_of_the_rows_has_had_enough(
    tmp_path: Path, tiny_model: Path, many: Path, lines: int, unbuffered: str
) -> None:
    """Clean 141, as SIGPIPE would have it."""
    code, error = into_a_closed_pipe(
        "in", "-m", tiny_model, cwd=tmp_path, lines=lines, PYTHONUNBUFFERED=unbuffered
    )
    first, *others = error.splitlines()
    assert code == 141, error
    assert first.startswith(f"{FILES} files")
    # how far it is, on a busy machine
    assert [line for line in others if not line.startswith("score: ")] == []


@pytest.mark.parametrize(
    ("flags", "unbuffered"),
    [
        (("--json",), "1"),
        (("--json", "--out", "t.csv"), ""),
        pytest.param(("--json",), "", marks=pytest.mark.slow),
        pytest.param(("--json", "--out", "t.csv"), "1", marks=pytest.mark.slow),
    ],
)
def test_s30_nobody_reads_the_summary(
    tmp_path: Path, tiny_model: Path, noises: list[Path], flags: tuple[str, ...], unbuffered: str
) -> None:
    """Table intact."""
    code, error = into_a_closed_pipe(
        "noises", "-m", tiny_model, *flags, cwd=tmp_path, lines=0, PYTHONUNBUFFERED=unbuffered
    )
    assert code == 141, error
    assert "Traceback" not in error
    assert "Exception" not in error
    if "--out" in flags:
        assert len(records(tmp_path / "t.csv")) == 12


def test_s30_nobody_reads_anything_while_a_table_is_made(
    tmp_path: Path, tiny_model: Path, noises: list[Path]
) -> None:
    """Scoring continues."""
    code, error = into_a_closed_pipe("noises", "-m", tiny_model, "--out", "t.csv", cwd=tmp_path, lines=0)
    assert code == 0, error
    assert len(records(tmp_path / "t.csv")) == 12


# S31


def test_s31_a_clock_that_goes_backwards(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn
) -> None:
    """Durations from monotonic; no negative throughput."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "backwards = itertools.count(4_000_000_000, -3_600)\n"
        "time.time = lambda: float(next(backwards))\n"
        "time.time_ns = lambda: next(backwards) * 10**9\n"
    )
    path = os.pathsep.join([str(tmp_path / "clock"), os.environ.get("PYTHONPATH", "")])
    ended = score("noises", "-m", tiny_model, "--out", "t.csv", "--json", fresh=True, PYTHONPATH=path)
    assert ended.code == 0, ended.err
    assert 0 < ended.summary["seconds"] < 3_600
    assert all(0 <= share < 2 for share in ended.summary["busy"].values())
    assert not re.search(r"-\d+ (files/s|x real)", ended.err)


# S32


def test_s32_files_and_folders_given_twice(
    tmp_path: Path, tiny_model: Path, noises: list[Path], score: Rrtn
) -> None:
    """De-duplicated by path, and counted; names that differ in case are different files."""
    shutil.copy(noises[0], tmp_path / "A.wav")
    shutil.copy(noises[1], tmp_path / "a.wav")
    (tmp_path / "list.txt").write_text("noises/03.wav\n./noises//04.wav\n")
    arguments = (
        "A.wav",
        "noises",
        "./noises",
        "noises/03.wav",
        "noises/../a.wav",
        "a.wav",
        tmp_path / "A.wav",
        "--list",
        "list.txt",
    )
    ended = score(*arguments, "-m", tiny_model, "--out", "t.csv", "--json")
    assert ended.code == 0
    assert ended.summary["files"] == 14
    assert "14 files (17 given twice)" in ended.err
    assert [record["file"] for record in records(tmp_path / "t.csv")] == [
        "A.wav",
        *(f"noises/{i:02}.wav" for i in range(12)),
        "noises/../a.wav",
    ]
