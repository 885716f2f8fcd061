"""A pack scores as its files do, with the same names, scores and codes, bit for bit.

It is there whole or not at all.
"""

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rrtn.commands.options import spool_from_options
from rrtn.runtime.audio import pack_reader, pack_writer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_reader import PackReader, inputs_from_pack
from rrtn.runtime.audio.pack_writer import Packed, write_packs
from rrtn.runtime.audio.sources import PackedFile, name_from_source
from rrtn.runtime.errors import DataError, StoppedError
from rrtn.runtime.progress import Progress
from rrtn.runtime.scoring.scorer import Scorer
from rrtn_processes import Server

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


Rrtn = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def rrtn(runtime_server: Server) -> Rrtn:
    """The command with small packs and shards."""
    return functools.partial(runtime_server.run, before=SMALL)


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


def test_packs_score_as_their_files_do(rrtn: Rrtn, audio: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Printed, as tables, and listed; the names are those that the files had when they were packed."""
    done = rrtn("pack", "in", "--out", "packs", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert len(contents(tmp_path / "packs")) > 1
    (tmp_path / "list").write_text(
        "".join(f"packs/{name}\n" for name in sorted(contents(tmp_path / "packs")))
    )
    shutil.move(audio, tmp_path / "away")
    for out, *given in (("folder.jsonl", "packs"), ("list.jsonl", "--list", "list")):
        assert rrtn("score", *given, "-m", tiny_model, "--out", out, cwd=tmp_path).returncode == 3
    printed = rrtn("score", "packs", "-m", tiny_model, cwd=tmp_path).stdout
    shutil.move(tmp_path / "away", audio)
    assert rrtn("score", "in", "-m", tiny_model, "--out", "files.jsonl", cwd=tmp_path).returncode == 3
    files = (tmp_path / "files.jsonl").read_bytes()
    assert len(files.splitlines()) == 36
    for out in ("folder.jsonl", "list.jsonl"):
        assert (tmp_path / out).read_bytes() == files
    assert printed == rrtn("score", "in", "-m", tiny_model, cwd=tmp_path).stdout
    for code in (b"empty", b"unsupported_format", b"truncated", b"missing", b"not_regular"):
        assert files.count(b'"error": "%s"' % code) == 1


def test_names_with_dots_are_different_files(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, real_clips: list[Path]
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


def test_a_killed_packer_goes_on_where_it_was(rrtn: Rrtn, audio: Path, tmp_path: Path) -> None:
    rrtn("pack", audio, "--out", "whole", cwd=tmp_path)
    whole = contents(tmp_path / "whole")
    assert len(whole) > 2
    for failpoint in ("pack.done:sigkill:1", "write.fsync:sigkill:1", "write.replace:sigkill:1"):
        assert (
            rrtn("pack", audio, "--out", "t", cwd=tmp_path, RRTN_FAILPOINT=failpoint).returncode
            == -signal.SIGKILL
        )
    begun = contents(tmp_path / "t")
    times = {name: (tmp_path / "t" / name).stat().st_mtime_ns for name in begun}
    assert len(begun) == 1
    done = rrtn("pack", audio, "--out", "t", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert contents(tmp_path / "t") == whole
    assert times == {name: (tmp_path / "t" / name).stat().st_mtime_ns for name in begun}  # not written again
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [".rrtn-pack.lock", *sorted(whole)]


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
        list(scorer.score_files([next(iter(inputs_from_pack(os.fsencode(path)))).source]))


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


def test_storage_that_recovers_gives_the_bytes_at_the_next_try(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read some at a time: the next try must not go on behind those that failed."""
    listed = [one.source for one in inputs_from_pack(os.fsencode(one_pack(audio / "below", tmp_path / "p")))]
    monkeypatch.setattr(pack_reader, "_AT_ONCE", 1)
    with PackReader() as reader:
        expected = [_bytes_of(reader, one) for one in listed]
    real, fails = pq.ParquetFile.iter_batches, [False, False, True]  # at the third row

    def iter_batches(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in real(self, *arguments, **options):
            if fails and fails.pop(0):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    with PackReader() as reader:
        assert [_bytes_of(reader, one) for one in listed[:2]] == expected[:2]
        with pytest.raises(StoppedError, match="Input/output error"):
            _bytes_of(reader, listed[2])
        assert [_bytes_of(reader, one) for one in listed[2:]] == expected[2:]


def _bytes_of(reader: PackReader, file: PackedFile) -> bytes:
    with reader.opened(file) as descriptor:
        return os.read(descriptor, 1 << 24)


def test_a_transient_error_of_a_pack_is_no_matter(
    audio: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one_pack(audio / "below", tmp_path / "packs")
    listed = [one.source for one in inputs_from_pack(os.fsencode(path))]
    monkeypatch.setenv("RRTN_FAILPOINT", "read.*:eio:2")
    with Scorer(tiny_model, workers=1) as scorer:
        assert [row.error for row in scorer.score_files(listed)] == [""] * len(listed)


def test_a_pack_of_a_pack_is_the_same_pack(audio: Path, tmp_path: Path) -> None:
    path = one_pack(audio, tmp_path / "packs")
    again = one_pack(path, tmp_path / "again")
    assert pq.read_table(again).equals(pq.read_table(path))


def test_neighbours_are_read_once(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = one_pack(audio / "below", tmp_path / "packs")
    reads: list[list[int] | None] = []
    real = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *arguments: Any, **options: Any) -> Any:
        reads.append(options.get("row_groups"))
        return real(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    with PackReader() as reader:
        for one in list(inputs_from_pack(os.fsencode(path))):
            with reader.opened(one.source):
                pass
    assert reads == [None, [0]]  # once for the names, once for the content


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, real_clips: list[Path]) -> None:
    code = f"import sys; sys.modules['pyarrow'] = None; {RRTN}"
    command = [sys.executable, "-c", code, "pack", str(real_clips[0]), "--out", "p"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'rrtn: pyarrow | not installed, and a pack needs it | pip install "pyarrow>=18"\n'


# N12: a changed footer


def tiny_pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files in two row groups."""
    monkeypatch.setattr(pack_writer, "_GROUP_FILES", 2)
    (folder / "in").mkdir()
    for i in range(4):
        (folder / f"in/{i}.wav").write_bytes(np.random.default_rng(i).bytes(300))
    return one_pack(folder / "in", folder / "packs")


def content_of(pack: Path) -> list[tuple[bytes, int, int, bytes]]:
    """Name, size, time and bytes of every file."""
    found = []
    with PackReader() as reader:
        for one in list(inputs_from_pack(os.fsencode(pack))):  # all of it is listed before anything is read
            with reader.opened(one.source) as descriptor:
                found.append(
                    (os.fsencode(name_from_source(one.source)), *one[1:3], os.read(descriptor, 1_000))
                )
    return found


def check_flips(pack: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> Counter[str]:
    """Flips single bits of the footer: each pack is refused, or is what it was."""
    whole, expected = pack.read_bytes(), content_of(pack)
    length = int.from_bytes(whole[-8:-4], "little")
    seen: Counter[str] = Counter()
    for bit in range(8 * (len(whole) - 8 - length), 8 * len(whole), every):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        pack.write_bytes(changed)
        try:
            assert content_of(pack) == expected, f"bit {bit}"
            seen["same"] += 1
        except (DataError, StoppedError) as error:
            assert "\n" not in str(error)
            seen[type(error).__name__] += 1
    return seen


def test_n12_a_flipped_bit_in_the_footer_never_gives_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = check_flips(tiny_pack(tmp_path, monkeypatch), monkeypatch, every=29)
    assert seen["DataError"] > seen["StoppedError"] > 0


@pytest.mark.slow
def test_n12_no_flipped_bit_in_the_footer_gives_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = check_flips(tiny_pack(tmp_path, monkeypatch), monkeypatch, every=1)
    assert sum(seen.values()) > 10_000


def changed_pack(pack: Path, change: Callable[[list[dict[str, Any]]], None], **options: Any) -> Path:
    """The same pack with other rows: its digest is as it was."""
    table = pq.read_table(pack)
    rows = table.to_pylist()
    change(rows)
    kept = pq.ParquetFile(pack).metadata.metadata
    metadata = {**table.schema.metadata, **{name: kept[name] for name in (b"digest",) if name in kept}}
    schema = table.schema.with_metadata(metadata)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), pack, **options)
    return pack


CHANGES = {
    "a name": lambda rows: rows[1].update(file="other.wav"),
    "two names": lambda rows: (rows[0].update(file=rows[1]["file"]), rows[1].update(file=rows[0]["file"])),
    "a size": lambda rows: rows[1].update(size=301),
    "a time": lambda rows: rows[1].update(mtime_ns=1),
    "a row less": lambda rows: rows.pop(),
    "a row more": lambda rows: rows.append(dict(rows[0], file="z.wav")),
    "an error": lambda rows: rows[1].update(error="missing"),
    "their order": lambda rows: rows.reverse(),
    "no row": lambda rows: rows.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_n12_other_rows_than_the_digest_says_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    pack = changed_pack(tiny_pack(tmp_path, monkeypatch), change)
    with pytest.raises(DataError, match=r"pack-000000-.* was changed.* pack again"):
        list(inputs_from_pack(os.fsencode(pack)))


def test_n24_rows_that_pyarrow_passes_over_are_missed_without_a_digest_too(
    audio: Path, tmp_path: Path
) -> None:
    """Two bytes less in the sound: pyarrow takes the columns before it for ended, and gives no row."""
    path = without_digest(one_pack(audio, tmp_path / "packs"))
    whole = path.read_bytes()
    cut = pq.ParquetFile(path).metadata.row_group(0).column(4).data_page_offset + 100
    path.write_bytes(whole[:cut] + whole[cut + 2 :])
    with pytest.raises(DataError, match=r"holds 0 of its \d+ rows"):
        list(inputs_from_pack(os.fsencode(path)))


def without_digest(pack: Path) -> Path:
    """As rrtn wrote packs until 2026-11-27."""
    table = pq.read_table(pack)
    table = table.replace_schema_metadata({b"rrtn": table.schema.metadata[b"rrtn"]})
    pq.write_table(table, pack, compression="none", use_dictionary=False, write_page_checksum=True)
    return pack


def test_n12_a_pack_of_before_is_read_with_a_word(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = one_pack(audio / "below", tmp_path / "packs")
    expected = content_of(pack)
    for note in ("", "note: 1 pack without a digest"):
        with spool_from_options([str(pack)], None) as spool:
            assert spool.files == 12
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("pack: ")]
        assert [line.startswith(note) for line in said] == [True] * bool(
            note
        )  # beside a slow disk's progress
        assert content_of(without_digest(pack)) == expected


# N15: rows that no pack of ours has


def odd_rows(rows: list[dict[str, Any]]) -> None:
    rows[0].update(file="nu\0l.wav")
    rows[1].update(file=None)
    rows[2].update(content=None)
    rows[3].update(size=None, mtime_ns=None)
    rows[4].update(size=-5, mtime_ns=-(2**62))
    rows[5].update(error="no such code")
    rows[6].update(file="", file_bytes=b"a\0007\0b")
    rows[7].update(content=b"")


def test_n15_odd_rows_of_a_pack_are_rows(rrtn: Rrtn, audio: Path, tmp_path: Path, tiny_model: Path) -> None:
    pack = without_digest(changed_pack(one_pack(audio / "below", tmp_path / "packs"), odd_rows))
    done = rrtn("score", "packs", "-m", tiny_model, "--out", "t.jsonl", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    errors = ["", "", "empty", "", "", "corrupt", "", "empty", "", "", "", ""]
    assert [row["error"] or "" for row in rows] == errors
    assert rows[0]["file"] == "nu\0l.wav"
    assert rows[1]["file"].endswith(f"{pack.name}#1")
    assert rows[6]["file"] == "a\0007\0b"


SCHEMAS = {
    "no size": lambda table: table.drop_columns("size"),
    "a size of text": lambda table: table.set_column(2, "size", pa.array(["1"] * 12)),
    "names of numbers": lambda table: table.set_column(0, "file", pa.array([1] * 12)),
    "lists of bytes": lambda table: table.set_column(4, "content", pa.array([[b"1"]] * 12)),
    "two columns of a name": lambda table: table.append_column("file", table.column("file")),
    "an error of bytes": lambda table: table.set_column(5, "error", pa.array([b"missing"] * 12)),
}


@pytest.mark.parametrize("change", SCHEMAS.values(), ids=SCHEMAS)
def test_n15_columns_of_another_kind_are_refused(
    audio: Path, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    pack = one_pack(audio / "below", tmp_path / "packs")
    table = pq.read_table(pack)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), pack)
    with pytest.raises(DataError, match=r"pack-000000-.* column "):
        list(inputs_from_pack(os.fsencode(pack)))


def test_n15_a_time_that_no_file_has_is_refused(audio: Path, tmp_path: Path) -> None:
    pack = one_pack(audio / "below", tmp_path / "packs")
    table = pq.read_table(pack)
    times = pa.array([2**63] * 12, pa.uint64())
    kept = pq.ParquetFile(pack).metadata.metadata[b"digest"]
    metadata = {**table.schema.metadata, b"digest": kept}
    changed = table.set_column(table.schema.get_field_index("mtime_ns"), "mtime_ns", times)
    pq.write_table(changed.replace_schema_metadata(metadata), pack)
    with pytest.raises(DataError, match=r"pack-000000-.* pack again"):
        list(inputs_from_pack(os.fsencode(pack)))


# N26: small packs of much


def test_n26_a_pack_that_another_program_compressed_scores_the_same(
    audio: Path, tmp_path: Path, tiny_model: Path
) -> None:
    pack = one_pack(audio / "below", tmp_path / "packs")
    expected = content_of(pack)
    for options in ({"compression": "zstd"}, {"row_group_size": 3}, {"use_dictionary": False}):
        changed_pack(pack, lambda rows: None, **options)
        assert content_of(pack) == expected
        with PackReader() as reader:  # in any order
            for one in reversed(list(inputs_from_pack(os.fsencode(pack)))):
                with reader.opened(one.source) as descriptor:
                    assert os.read(descriptor, 1_000) == next(
                        e[3] for e in expected if e[0] == one.source.name
                    )


def bomb(pack: Path, rows: int, each: int, *, size: int, **options: Any) -> Path:
    """A pack of many times the same zeros, which says that each file has `size` bytes."""
    table = pq.read_table(pack)
    columns = {
        "file": pa.array([f"{i}.wav" for i in range(rows)]),
        "file_bytes": pa.nulls(rows, pa.binary()),
        "size": pa.array([size] * rows, pa.int64()),
        "mtime_ns": pa.array([0] * rows, pa.int64()),
        "content": pa.array([bytes(each)], pa.large_binary()).take(pa.array([0] * rows)),
        "error": pa.nulls(rows, pa.string()),
    }
    written = pa.table(columns, schema=table.schema)
    pq.write_table(written, pack, compression="zstd", row_group_size=rows, **options)
    return pack


@pytest.mark.parametrize(
    ("rows", "each", "options"),
    [
        pytest.param(1, 300 << 20, {"use_dictionary": False}, id="one file", marks=pytest.mark.slow),
        pytest.param(300, 1 << 20, {"dictionary_pagesize_limit": 1 << 22}, id="a dictionary"),
    ],
)
def test_n26_a_small_pack_of_a_gigabyte_is_refused(
    audio: Path, tmp_path: Path, rows: int, each: int, options: dict[str, Any]
) -> None:
    pack = bomb(one_pack(audio / "below", tmp_path / "packs"), rows, each, size=each, **options)
    assert pack.stat().st_size < 200_000
    with pytest.raises(DataError, match="bytes unfold to "):
        list(inputs_from_pack(os.fsencode(pack)))


READS = """
import os, re, sys
from rrtn.runtime.audio.pack_reader import PackReader, inputs_from_pack
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
with PackReader() as reader:
    found = list(inputs_from_pack(os.fsencode(sys.argv[1])))
    before = peak()
    for one in found:
        with reader.opened(one.source) as descriptor:
            assert os.fstat(descriptor).st_size == 1 << 20
    print(len(found), peak() - before)
"""


def test_n26_a_pack_that_lies_about_its_sizes_takes_little_memory(audio: Path, tmp_path: Path) -> None:
    """600 MiB, eight rows at a time."""
    pack = one_pack(audio / "below", tmp_path / "packs")
    bomb(pack, 600, 1 << 20, size=10, dictionary_pagesize_limit=1 << 22)
    assert pack.stat().st_size < 20_000
    command = [sys.executable, "-c", READS, str(pack)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 600
    assert kilobytes < 100_000


def test_n26_more_rows_than_bytes_are_refused(audio: Path, tmp_path: Path) -> None:
    pack = one_pack(audio / "below", tmp_path / "packs")
    table = pq.read_table(pack)
    many = pa.table({name: pa.nulls(100_000, table.schema.field(name).type) for name in table.column_names})
    pq.write_table(many.replace_schema_metadata(table.schema.metadata), pack, compression="zstd")
    with pytest.raises(DataError, match=r"100000 rows in \d+ bytes"):
        list(inputs_from_pack(os.fsencode(pack)))


@pytest.mark.parametrize("out", ["in", "in/packs", "in/../in/packs"])
def test_packs_among_the_files_that_they_hold_are_refused(rrtn: Rrtn, tmp_path: Path, out: str) -> None:
    (tmp_path / "in").mkdir()
    done = rrtn("pack", "in", "--out", out, cwd=tmp_path)
    assert (done.returncode, b"is in in, which is packed" in done.stderr) == (2, True)
    assert [*(tmp_path / "in").iterdir()] == []
