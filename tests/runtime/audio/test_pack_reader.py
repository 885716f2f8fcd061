"""A pack scores as its files do, with the same names, scores and codes, bit for bit.

It is there whole or not at all.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rrtn.runtime.audio import pack_writer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_reader import PackReader, inputs_from_pack
from rrtn.runtime.audio.pack_writer import Packed, write_packs
from rrtn.runtime.audio.sources import name_from_source
from rrtn.runtime.errors import DataError, StoppedError
from rrtn.runtime.progress import Progress
from rrtn.runtime.scoring.scorer import Scorer

NAMES = [
    b"caf\xe9.wav",
    b"new\nline.wav",
    b"=cmd.wav",
    b"a,b;c'\".wav",
    b"\xed\xb2\x80.wav",
    "caf\u00e9\U0001f600.wav".encode(),
    b" .wav",
]
SMALL = (
    "from rrtn.runtime.audio import pack_writer, input_spool; "
    "pack_writer.PACK_BYTES, input_spool.MOST_FILES = 200_000, 4"
)
RRTN = f"{SMALL}; from rrtn.cli import main; main()"


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several packs of several row groups."""
    monkeypatch.setattr(pack_writer, "PACK_BYTES", 200_000)
    monkeypatch.setattr(pack_writer, "_GROUP_FILES", 3)
    monkeypatch.setattr("rrtn.runtime.audio.input_spool.MOST_FILES", 4)


@pytest.fixture
def audio(tmp_path: Path, real_clips: list[Path]) -> Path:
    """Thirty files with awkward names, in two folders, five of them bad."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    for number, clip in enumerate(real_clips):
        shutil.copy(clip, folder / f"{number:02}-{clip.name}")
        shutil.copy(clip, folder / "below" / clip.name)
    for name in NAMES:
        shutil.copy(real_clips[1], os.path.join(os.fsencode(folder), name))
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no audio")
    cut = (folder / f"01-{real_clips[1].name}").read_bytes()
    (folder / "cut.wav").write_bytes(cut[: len(cut) // 2])
    (folder / "gone.wav").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.wav")
    return folder


def pack(folder: Path, out: Path) -> Packed:
    with InputSpool(inputs_from_arguments([folder])) as spool, Progress("pack", spool.files, "files") as bar:
        return write_packs(spool, out, bar)


def rrtn(*arguments: object, cwd: Path, failpoint: str = "") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-c", RRTN, *map(str, arguments)]
    env = {**os.environ, "RRTN_FAILPOINT": failpoint}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, timeout=500, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.usefixtures("small_packs")
def test_every_byte_of_every_file_and_name_comes_back(audio: Path, tmp_path: Path) -> None:
    listed = list(inputs_from_arguments([audio]))
    packed = pack(audio, tmp_path / "packs")
    assert packed.files == len(listed) == 36
    assert packed.errors == Counter(missing=1, not_regular=1)
    assert packed.packs == packed.written == len(contents(tmp_path / "packs")) > 1
    found = list(inputs_from_arguments([tmp_path / "packs"]))
    assert [(name_from_source(one.source), one.size, one.mtime_ns) for one in found] == [
        one[:3] for one in listed
    ]
    with PackReader() as reader:
        for one in found:
            name = os.fsdecode(name_from_source(one.source))
            if Path(name).name not in ("gone.wav", "pipe.wav"):
                with reader.opened(one.source) as descriptor:
                    assert os.read(descriptor, one.size + 1) == Path(name).read_bytes()


def test_packs_score_as_their_files_do(audio: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Printed, as tables, and listed; the names are those that the files had when they were packed."""
    done = rrtn("pack", "in", "--out", "packs", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert len(contents(tmp_path / "packs")) > 1
    (tmp_path / "list").write_text(
        "".join(f"packs/{name}\n" for name in sorted(contents(tmp_path / "packs")))
    )
    shutil.move(audio, tmp_path / "away")
    for out, *given in (
        ("folder.jsonl", "packs"),
        ("list.jsonl", "--list", "list"),
        ("again.jsonl", "packs"),
    ):
        assert rrtn("score", *given, "-m", tiny_model, "--out", out, cwd=tmp_path).returncode == 3
    printed = rrtn("score", "packs", "-m", tiny_model, cwd=tmp_path).stdout
    shutil.move(tmp_path / "away", audio)
    assert rrtn("score", "in", "-m", tiny_model, "--out", "files.jsonl", cwd=tmp_path).returncode == 3
    files = (tmp_path / "files.jsonl").read_bytes()
    assert len(files.splitlines()) == 36
    for out in ("folder.jsonl", "list.jsonl", "again.jsonl"):
        assert (tmp_path / out).read_bytes() == files
    assert printed == rrtn("score", "in", "-m", tiny_model, cwd=tmp_path).stdout
    for code in (b"empty", b"unsupported_format", b"truncated", b"missing", b"not_regular"):
        assert files.count(b'"error": "%s"' % code) == 1


def test_names_with_dots_are_different_files(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path]
) -> None:
    """What stands behind the NUL is no path to be made shorter: as one, both would be here/p/b.wav."""
    here, names = tmp_path / "here", ("a/../b.wav", "a/../../p/b.wav")
    (here / "a").mkdir(parents=True)
    (tmp_path / "p").mkdir()
    for name, clip in zip(names, real_clips[1:], strict=False):
        shutil.copy(clip, here / name)
    assert rrtn("pack", *names, "--out", "p", cwd=here).returncode == 0
    rows = rrtn("score", "p", "-m", tiny_model, cwd=here).stdout.decode().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["file", *names]


def test_a_killed_packer_goes_on_where_it_was(audio: Path, tmp_path: Path) -> None:
    rrtn("pack", audio, "--out", "whole", cwd=tmp_path)
    whole = contents(tmp_path / "whole")
    assert len(whole) > 2
    for failpoint in ("pack.done:sigkill:1", "write.fsync:sigkill:1", "write.replace:sigkill:1"):
        assert (
            rrtn("pack", audio, "--out", "t", cwd=tmp_path, failpoint=failpoint).returncode == -signal.SIGKILL
        )
    begun = contents(tmp_path / "t")
    times = {name: (tmp_path / "t" / name).stat().st_mtime_ns for name in begun}
    assert len(begun) == 1
    done = rrtn("pack", audio, "--out", "t", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert contents(tmp_path / "t") == whole
    assert times == {name: (tmp_path / "t" / name).stat().st_mtime_ns for name in begun}  # not written again
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [".lock", *sorted(whole)]


@pytest.mark.usefixtures("small_packs")
def test_packs_of_other_files_are_not_mixed(audio: Path, tmp_path: Path) -> None:
    pack(audio / "below", tmp_path / "packs")
    before = contents(tmp_path / "packs")
    with pytest.raises(DataError, match="other files"):
        pack(audio, tmp_path / "packs")
    assert contents(tmp_path / "packs") == before


def one_pack(folder: Path, out: Path) -> Path:
    pack(folder, out)
    (path,) = out.glob("*.parquet")
    return path


@pytest.mark.parametrize("length", [0, 10, -1, -1000])
def test_a_pack_that_is_cut_is_refused(audio: Path, tmp_path: Path, length: int) -> None:
    path = one_pack(audio, tmp_path / "packs")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"pack-000000-.* pack again"):
        list(inputs_from_arguments([tmp_path / "packs"]))


def test_another_parquet_file_is_refused_and_in_a_folder_not_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": ["a.wav"]}), tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="no pack"):
        list(inputs_from_arguments([tmp_path / "scores.parquet"]))
    assert list(inputs_from_arguments([tmp_path])) == []


def test_a_flipped_bit_in_the_audio_stops_and_is_not_scored(
    audio: Path, tmp_path: Path, scorer: Scorer
) -> None:
    path = one_pack(audio, tmp_path / "packs")
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"data", whole.index(b"WAVEfmt")) + 1000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(StoppedError, match="pack-000000-"):
        list(
            scorer.score_files([one.source for one in inputs_from_pack(os.fsencode(path))][:2])
        )  # each is tried for 2.6 s


def test_a_pack_that_was_replaced_stops(audio: Path, tmp_path: Path) -> None:
    path = one_pack(audio, tmp_path / "packs")
    listed = list(inputs_from_pack(os.fsencode(path)))
    one_pack(audio / "below", tmp_path / "other").replace(path)
    with (
        PackReader() as reader,
        pytest.raises(StoppedError, match="another file"),
        reader.opened(listed[0].source),
    ):
        pass


def test_a_pack_of_a_pack_is_the_same_pack(audio: Path, tmp_path: Path) -> None:
    path = one_pack(audio, tmp_path / "packs")
    again = one_pack(path, tmp_path / "again")
    assert pq.read_table(again).equals(pq.read_table(path))


def test_neighbours_are_read_once(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = one_pack(audio / "below", tmp_path / "packs")
    reads: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **o: reads.append(i) or real(self, i, **o)
    )
    with PackReader() as reader:
        for one in list(inputs_from_pack(os.fsencode(path))):
            with reader.opened(one.source):
                pass
    assert reads == [0, 0]  # once for the names, once for the content


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, real_clips: list[Path]) -> None:
    code = f"import sys; sys.modules['pyarrow'] = None; {RRTN}"
    command = [sys.executable, "-c", code, "pack", str(real_clips[0]), "--out", "p"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr == 'rrtn: pyarrow | is not installed, and packs need it | pip install "rrtn[parquet]"\n'
    )
