"""Every table gives back the exact bytes of every name and the same scores, and is whole or not there."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rrtn.runtime.audio.codes import FLAGS
from rrtn.runtime.audio.file_names import path_from_cell, path_from_record
from rrtn.runtime.errors import ConfigError, MissingExtraError, StoppedError
from rrtn.runtime.tables import parquet_table
from rrtn.runtime.tables.csv_table import csv_lines
from rrtn.runtime.tables.formats import FORMATS
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.writer import check_table, write_table
from rrtn_processes import Ended, Server

SUFFIXES = tuple(FORMATS)
LABELS = ("Awe", "=Fear")
GOOD = Row(file=b"a,b.wav", start=0.0, end=2.49, scores={"Awe": 0.1234567, "=Fear": 1e-9}, seconds=4.0)
FLAGGED = Row(
    file="silent.wav", start=0.0, end=0.5, scores={"Awe": 0.5, "=Fear": 1.0}, flags=("silent", "truncated")
)
BAD = Row(file=Path("-gone.wav"), error="missing", detail="not there")
TABLE = (
    "file,start,end,Awe,'=Fear,error,flags\n"
    '"a,b.wav",0.000,2.490,0.123457,0.000000,,\n'
    "silent.wav,0.000,0.500,0.500000,1.000000,,silent;truncated\n"
    "'-gone.wav,,,,,missing,\n"
)
AWKWARD = [
    b"new\nline.wav",
    b"\t=cmd.wav",
    b"quote\"'.wav",
    b"caf\xe9.wav",
    b"\\x41 is not A.wav",
    b"a,b;c.wav",
]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_csv_is_exactly_this(tmp_path: Path) -> None:
    rows = [GOOD, FLAGGED, BAD]
    assert list(write_table(tmp_path / "t.csv", rows, LABELS)) == rows
    assert (tmp_path / "t.csv").read_bytes() == TABLE.encode()
    assert "".join(csv_lines(rows, LABELS)) == TABLE


def test_the_jsonl_is_exactly_this(tmp_path: Path) -> None:
    rows = [
        GOOD,
        FLAGGED,
        BAD,
        Row(file=b"caf\xe9 \xe2\x82\xac.wav", scores={"Awe": float(np.float32(0.1)), "=Fear": 0.0}),
    ]
    list(write_table(tmp_path / "t.JSONL", rows, LABELS))
    assert (tmp_path / "t.JSONL").read_text().splitlines() == [
        '{"file": "a,b.wav", "start": 0.0, "end": 2.49, "scores": {"Awe": 0.1234567, "=Fear": 1e-09},'
        ' "error": null, "flags": ""}',
        '{"file": "silent.wav", "start": 0.0, "end": 0.5, "scores": {"Awe": 0.5, "=Fear": 1.0},'
        ' "error": null, "flags": "silent;truncated"}',
        '{"file": "-gone.wav", "start": null, "end": null, "scores": null, "error": "missing", "flags": ""}',
        '{"file": "caf\\ufffd \\u20ac.wav", "start": null, "end": null, "scores": {"Awe": 0.1, "=Fear": 0.0},'
        ' "error": null, "flags": "", "file_bytes": "Y2Fm6SDigqwud2F2"}',
    ]


def test_the_parquet_is_exactly_this(tmp_path: Path) -> None:
    list(
        write_table(
            tmp_path / "t.parquet", [GOOD, FLAGGED, BAD, Row(file=b"caf\xe9", error="missing")], LABELS
        )
    )
    table = pq.read_table(tmp_path / "t.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "file": "string",
        "start": "double",
        "end": "double",
        "Awe": "float",
        "=Fear": "float",
        "error": "dictionary<values=string, indices=int32, ordered=0>",
        "flags": "dictionary<values=string, indices=int32, ordered=0>",
        "file_bytes": "binary",
    }
    assert json.loads(table.schema.metadata[b"labels"]) == list(LABELS)
    assert table.to_pydict() == {
        "file": ["a,b.wav", "silent.wav", "-gone.wav", "caf\ufffd"],
        "start": [0.0, 0.0, None, None],
        "end": [2.49, 0.5, None, None],
        "Awe": [float(np.float32(0.1234567)), 0.5, None, None],
        "=Fear": [float(np.float32(1e-9)), 1.0, None, None],
        "error": [None, None, "missing", "missing"],
        "flags": ["", "silent;truncated", "", ""],
        "file_bytes": [None, None, None, b"caf\xe9"],
    }


def random_name(rng: np.random.Generator) -> bytes:
    """Bytes of every kind, valid UTF-8 of every width, and the awkward ones."""
    match rng.integers(3):
        case 0:
            return rng.bytes(rng.integers(1, 20)).replace(b"\0", b"/")
        case 1:
            points = rng.choice(
                [*range(1, 0x300), 0x85, 0x2028, 0xFFFD, 0xFEFF, 0x1F600], rng.integers(1, 20)
            )
            return "".join(map(chr, points)).encode()
        case _:
            return AWKWARD[rng.integers(len(AWKWARD))]


def random_rows(count: int, *, seed: int, size: int = 0) -> list[Row]:
    """Scored files with windows and their mean, flags, and bad files."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        scores = (rng.random(2) ** rng.integers(1, 30)).astype(np.float32).tolist()
        embedding = rng.standard_normal(size).astype(np.float32) if size and rng.random() < 0.8 else None
        start, end = (None, None) if rng.random() < 0.2 else sorted(rng.random(2).round(3).tolist())
        if rng.random() < 0.3:
            rows.append(Row(file=random_name(rng), error="corrupt"))
        else:
            values = dict(zip(LABELS, scores, strict=True))
            flags = tuple(flag for flag in FLAGS if rng.random() < 0.3)
            rows.append(
                Row(
                    file=random_name(rng),
                    start=start,
                    end=end,
                    scores=values,
                    flags=flags,
                    embedding=embedding,
                )
            )
    return rows


Record = tuple[bytes, float | None, float | None, tuple[float, ...] | None, str, str]


def records_of(rows: list[Row]) -> list[Record]:
    return [
        (
            os.fsencode(row.file),
            row.start,
            row.end,
            tuple(row.scores.values()) if row.scores else None,
            row.error,
            ";".join(row.flags),
        )
        for row in rows
    ]


def read_csv(path: Path) -> list[Record]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["file", "start", "end", "Awe", "'=Fear", "error", "flags"]
    return [
        (
            path_from_cell(cells[0]),
            float(cells[1]) if cells[1] else None,
            float(cells[2]) if cells[2] else None,
            tuple(map(float, cells[3:5])) if cells[3] else None,
            cells[5],
            cells[6],
        )
        for cells in lines
    ]


def read_jsonl(path: Path) -> list[Record]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        (
            path_from_record(record),
            record["start"],
            record["end"],
            tuple(float(np.float32(value)) for value in record["scores"].values())
            if record["scores"]
            else None,
            record["error"] or "",
            record["flags"],
        )
        for record in records
    ]


def read_parquet(path: Path) -> list[Record]:
    return [
        (
            path_from_record(record),
            record["start"],
            record["end"],
            None if record["Awe"] is None else (record["Awe"], record["=Fear"]),
            record["error"] or "",
            record["flags"],
        )
        for record in pq.read_table(path).to_pylist()
    ]


@pytest.mark.parametrize("seed", range(5))
def test_all_tables_give_back_exact_names_and_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """JSONL and Parquet bit by bit; CSV to its six decimals."""
    monkeypatch.setattr(parquet_table, "_GROUP_ROWS", 64)  # several row groups, the last one shorter
    rows = random_rows(500, seed=seed)
    for suffix in SUFFIXES:
        assert list(write_table(tmp_path / f"t{suffix}", rows, LABELS)) == rows
    expected = records_of(rows)
    assert read_jsonl(tmp_path / "t.jsonl") == expected
    assert read_parquet(tmp_path / "t.parquet") == expected
    rounded = [
        (name, start, end, scores and tuple(float(f"{score:.6f}") for score in scores), *codes)
        for name, start, end, scores, *codes in expected
    ]
    assert read_csv(tmp_path / "t.csv") == rounded


def test_twins_that_look_alike_stay_two(tmp_path: Path) -> None:
    twins = [
        "caf\u00e9.wav".encode(),
        "cafe\u0301.wav".encode(),
        b"caf\xe9.wav",
        b"caf\xe8.wav",
        "caf\ufffd.wav".encode(),
    ]
    for suffix, read in {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}.items():
        list(
            write_table(tmp_path / f"t{suffix}", [Row(file=name, error="missing") for name in twins], LABELS)
        )
        assert [record[0] for record in read(tmp_path / f"t{suffix}")] == twins


def test_a_label_never_takes_the_place_of_a_column_of_the_tables_own(tmp_path: Path) -> None:
    labels = ("file", "score_file", "error", "embedding", "Awe")
    row = Row(file="a.wav", scores=dict(zip(labels, (0.0, 0.25, 0.5, 0.75, 1.0), strict=True)))
    for suffix in SUFFIXES:
        list(write_table(tmp_path / f"t{suffix}", [row], labels))
    with (tmp_path / "t.csv").open() as file:
        cells = next(csv.DictReader(file))
    columns = {
        "score_score_file": 0.0,
        "score_file": 0.25,
        "score_error": 0.5,
        "score_embedding": 0.75,
        "Awe": 1.0,
    }
    assert {name: float(cells[name]) for name in columns} == columns
    record = pq.read_table(tmp_path / "t.parquet").to_pylist()[0]
    assert {name: record[name] for name in columns} == columns
    assert (cells["file"], cells["error"], record["file"], record["error"]) == ("a.wav", "", "a.wav", None)
    assert json.loads((tmp_path / "t.jsonl").read_text())["scores"] == row.scores


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        list(
            write_table(
                tmp_path / f"{name}{suffix}", random_rows(300, seed=1, size=3), LABELS, embedding_size=3
            )
        )
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_rows_make_an_empty_table(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"t{suffix}"
    assert list(write_table(target, [], LABELS, embedding_size=4)) == []
    assert {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}[suffix](target) == []
    if suffix != ".parquet":
        assert np.load(tmp_path / "t.embeddings.npy").shape == (0, 4)


def test_row_groups_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows, and in bytes of embeddings."""
    monkeypatch.setattr(parquet_table, "_GROUP_ROWS", 40)
    monkeypatch.setattr(parquet_table, "_GROUP_BYTES", 1600)
    rows = random_rows(100, seed=2, size=16)
    list(write_table(tmp_path / "plain.parquet", rows, LABELS))
    list(write_table(tmp_path / "wide.parquet", rows, LABELS, embedding_size=16))
    assert group_sizes(tmp_path / "plain.parquet") == [40, 40, 20]
    assert group_sizes(tmp_path / "wide.parquet") == [25, 25, 25, 25]


def group_sizes(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_embeddings_lie_beside_row_by_row(tmp_path: Path, suffix: str) -> None:
    rows = random_rows(200, seed=3, size=5)
    target = tmp_path / f"a.b{suffix}"
    assert list(write_table(target, rows, LABELS, embedding_size=5)) == rows
    assert names_in(tmp_path) == sorted([f"a.b{suffix}", "a.b.embeddings.npy"])
    embeddings = np.load(tmp_path / "a.b.embeddings.npy", mmap_mode="r")
    assert embeddings.dtype == np.float32
    nothing = np.full(5, np.nan, np.float32)
    expected = np.stack([nothing if row.embedding is None else row.embedding for row in rows])
    assert np.array_equal(embeddings, expected, equal_nan=True)
    assert np.isnan(expected).any(axis=1).sum() > 20
    list(write_table(tmp_path / f"plain{suffix}", rows, LABELS))
    assert target.read_bytes() == (tmp_path / f"plain{suffix}").read_bytes()


def test_embeddings_are_a_column_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_table, "_GROUP_ROWS", 64)
    rows = random_rows(200, seed=3, size=5)
    list(write_table(tmp_path / "t.parquet", rows, LABELS, embedding_size=5))
    table = pq.read_table(tmp_path / "t.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[5]"
    expected = [None if row.embedding is None else row.embedding.tolist() for row in rows]
    assert table["embedding"].to_pylist() == expected
    assert names_in(tmp_path) == ["t.parquet"]
    assert read_parquet(tmp_path / "t.parquet") == records_of(rows)


def rows_that_fail() -> Iterator[Row]:
    yield GOOD
    raise StoppedError("the storage is gone")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_stops_leaves_the_old_table_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"t{suffix}"
    target.write_text("old")
    with pytest.raises(StoppedError, match="the storage is gone"):
        list(write_table(target, rows_that_fail(), LABELS, embedding_size=2))
    assert names_in(tmp_path) == [target.name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_reader_that_leaves_early_gets_no_half_table(tmp_path: Path, suffix: str) -> None:
    rows = write_table(tmp_path / f"t{suffix}", [GOOD, BAD], LABELS, embedding_size=2)
    assert next(rows) is GOOD
    assert not (tmp_path / f"t{suffix}").exists()
    rows.close()  # type: ignore[attr-defined]
    assert names_in(tmp_path) == []


def test_a_folder_that_is_gone_stops_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"gone/t\.csv"):
        list(write_table(tmp_path / "gone" / "t.csv", [GOOD], LABELS))


_FULL_DISK = """
import resource
from pathlib import Path
import numpy as np
from rrtn.runtime.errors import StoppedError
from rrtn.runtime.tables import parquet_table
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.writer import write_table

{}
parquet_table._GROUP_ROWS = 2_000
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
rows = (
    Row(file=rng.bytes(200), scores={{"Awe": rng.random()}}, embedding=rng.random(8, np.float32))
    for _ in range(6_000)
)
try:
    for row in write_table(target, rows, ("Awe",), embedding_size=size):
        pass
except StoppedError as error:
    print(error)
    raise SystemExit(error.exit_code)
raise SystemExit
"""
Write = Callable[..., Ended]


@pytest.fixture
def write_on_a_full_disk(runtime_server: Server) -> Write:
    def write(target: Path, *, limit: int = 0, size: int = 0, failpoint: str = "") -> Ended:
        given = f"target, limit, size = Path({str(target)!r}), {limit}, {size or None}"
        child = runtime_server.start(
            cwd=target.parent, before=_FULL_DISK.format(given), RRTN_FAILPOINT=failpoint
        )
        return child.wait()

    return write


@pytest.mark.parametrize(
    ("limit", "size"),  # bytes a file may have, or 0: the fail-point stops it; numbers in an embedding
    [
        (0, 0),
        (1_000_000, 0),
        (10_000, 8),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0, 8), (1_000_000, 8), (10_000, 0))),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_stops_and_leaves_the_old_table(
    write_on_a_full_disk: Write, tmp_path: Path, suffix: str, limit: int, size: int
) -> None:
    """Fault S3: one line, exit code 4, the old table whole, nothing else left."""
    target = tmp_path / f"t{suffix}"
    target.write_text("old")
    failpoint = "" if limit else "write.fsync:enospc"
    stopped = write_on_a_full_disk(target, limit=limit, size=size, failpoint=failpoint)
    assert (stopped.code, stopped.err) == (4, "")
    reason = "File too large" if limit else "No space left on device"
    assert stopped.out == (
        f"{target} | {reason} | expected a folder with free space that can be written to | "
        "make room there, or choose another folder, and run the command again\n"
    )
    assert names_in(tmp_path) == [target.name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_on_a_disk_with_room_the_same_command_goes_on(
    write_on_a_full_disk: Write, tmp_path: Path, suffix: str
) -> None:
    """What stopped at each limit of the test above is larger than it."""
    target = tmp_path / f"t{suffix}"
    assert write_on_a_full_disk(target, limit=1_000_000).code == 4
    assert write_on_a_full_disk(target).code == 0
    assert target.stat().st_size > 1_000_000


def test_the_names_that_check_table_takes(tmp_path: Path) -> None:
    for name in ("a.csv", "a.JSONL", "a.b.Parquet"):
        check_table(tmp_path / name, embeddings=True)
    (tmp_path / "a.csv").write_text("old")
    check_table(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.xlsx", r"t\.xlsx \| has the suffix \.xlsx \| expected \.csv, \.jsonl or \.parquet"),
        ("t", r"no suffix"),
        ("folder.csv", r"is not a regular file"),
        ("pipe.csv", r"is not a regular file"),
        ("file/t.csv", r"file is no folder"),
        ("gone/t.csv", r"gone is no folder"),
        ("e.csv", r"e\.embeddings\.npy \| is not a regular file"),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_anything_is_loaded(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "e.embeddings.npy").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match=message) as caught:
        check_table(tmp_path / name, embeddings=True)
    assert "\n" not in str(caught.value)


def test_a_folder_that_takes_no_file_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    """Fault S4; /proc takes none from root either."""
    with pytest.raises(StoppedError, match=r"t\.csv \| .* \| expected a folder with free space"):
        check_table(Path("/proc/self/t.csv"))
    with pytest.raises(ConfigError, match="too long"):
        check_table(tmp_path / f"{'x' * 300}.csv")


def test_parquet_without_pyarrow_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for write in (check_table, lambda target: list(write_table(target, [GOOD], LABELS))):
        with pytest.raises(MissingExtraError, match=re.escape('pip install "pyarrow>=18"')):
            write(tmp_path / "t.parquet")
    check_table(tmp_path / "t.jsonl")
    assert names_in(tmp_path) == []


def test_csv_and_jsonl_never_load_pyarrow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rrtn.runtime.tables.writer import check_table, write_table\n"
        f"check_table(Path({str(tmp_path / 'a.parquet')!r}))\n"
        f"for name in ('a.csv', 'a.jsonl'): list(write_table(Path({str(tmp_path)!r}) / name, [], ('Awe',)))\n"
        "sys.exit('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=500).returncode == 0
