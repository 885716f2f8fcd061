"""Shards, whose parts stay good as long as their files do; parts, which say what they hold or are
made again.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rrtn.runtime.audio.codes import ERROR_CODES, FLAGS
from rrtn.runtime.audio.input_spool import MEAN_FILES, MOST_FILES, InputSpool, Shard
from rrtn.runtime.audio.sources import Input
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.runtime.scoring.part_file import part_from_rows, rows_from_part
from rrtn.runtime.scoring.table_job import check_job, opened_job
from rrtn.runtime.tables.embedding_file import embedding_path
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.writer import read_table, write_table

LABELS = ("Awe", "Fear", "Joy")
SETTINGS: dict[str, Any] = {"model": "a" * 64, "window": None, "batch_size": 4}


def inputs(numbers: Iterable[int]) -> list[Input]:
    return [Input(b"in/%06d.wav" % number, 1_000 + number, number**3) for number in numbers]


def keys(found: Iterable[Input]) -> list[str]:
    with InputSpool(found) as spool:
        return [shard.key for shard in spool.shards]


def places(spool: InputSpool) -> list[bytes]:
    return [path for shard in spool.shards for path in spool.sources(shard)]


# Shards


def test_shards_are_the_files_in_their_order() -> None:
    found = inputs(range(20_000))
    with InputSpool(found) as spool:
        assert places(spool) == [path for path, *_ in found]
        assert [len(spool.sources(shard)) for shard in spool.shards] == [
            shard.files for shard in spool.shards
        ]
        assert max(shard.files for shard in spool.shards) <= MOST_FILES
        assert MEAN_FILES / 1.5 < np.mean([shard.files for shard in spool.shards]) < MEAN_FILES * 1.5
        assert spool.files == spool.files_of(spool.shards) == 20_000
        assert len({shard.key for shard in spool.shards}) == len(spool.shards)
        assert spool.sources(spool.shards[3]) == spool.sources(spool.shards[3])


@pytest.mark.parametrize(
    "place", [0, 12_345, 19_999, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 5_000))]
)
def test_a_file_that_comes_goes_or_changes_changes_its_own_shard(place: int) -> None:
    """Or two, where it is the last of one.

    And the cut after MOST_FILES may move, up to the next one by a name.
    """
    found = inputs(range(20_000))
    before = set(keys(found))
    gone, changed, touched = [*found], [*found], [*found]
    del gone[place]
    changed[place] = found[place]._replace(size=1)
    touched[place] = found[place]._replace(mtime_ns=-1)
    come = [*found[:place], Input(b"in/%06d-new.wav" % place), *found[place:]]
    for other in (gone, changed, touched, come):
        after = set(keys(other))
        assert 1 <= len(after - before) <= 2
        assert 1 <= len(before - after) <= 2


def test_the_key_is_of_names_sizes_times_and_order() -> None:
    one, two = inputs([1, 2])
    shards = [[one, two], [two, one], [one], [one, two._replace(size=9)], [one, two._replace(mtime_ns=9)]]
    shards += [[one, two._replace(source=b"in/000003.wav")], [Input(b"in/000001.wa", 1, 2), two]]
    assert all(len(keys(shard)) == 1 for shard in shards)
    assert len({keys(shard)[0] for shard in shards}) == len(shards)
    assert keys([one, two]) == keys([one, two])


def test_one_file_spelt_in_several_ways_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(tmp_path)
    spelt = [
        b"a.wav",
        b"./a.wav",
        b".//a.wav",
        b"b/../a.wav",
        here + b"/a.wav",
        b"../" + os.path.basename(here) + b"/a.wav",
    ]
    with InputSpool(map(Input, [*spelt, b"A.wav", b"b/a.wav"])) as spool:
        assert places(spool) == [b"a.wav", b"A.wav", b"b/a.wav"]
        assert (spool.files, spool.twice) == (3, 5)


def test_two_dots_behind_a_link_lead_to_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, link/../a.wav would be a.wav, which would then never be scored."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/folder")
    with InputSpool(map(Input, [b"link/../a.wav", b"a.wav", b"far/a.wav"])) as spool:
        assert places(spool) == [b"link/../a.wav", b"a.wav"]
        assert spool.twice == 1


def test_paths_are_any_bytes() -> None:
    odd = [
        b"a\nb.wav",
        b"caf\xe9\xff.wav",
        b"\x01",
        b" ",
        b"-",
        "\u00e9.wav".encode(),
        b"x" * 4_095,
        b"in/\r.wav",
        b"\\x41",
    ]
    with InputSpool(map(Input, odd)) as spool:
        assert places(spool) == odd
        assert spool.twice == 0


def test_shards_are_cut_alike_wherever_the_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, its parts and its files may be moved together."""
    here = keys(inputs(range(3_000)))
    monkeypatch.chdir(tmp_path)
    assert keys(inputs(range(3_000))) == here


def test_times_are_any_time() -> None:
    """ext4 has years up to 2446, others more; before 1970 too."""
    times = [-(10**18), 0, 10**19, 10**30]
    with InputSpool(Input(b"%d.wav" % i, 1, time) for i, time in enumerate(times)) as spool:
        assert spool.files == 4


def test_nothing_is_no_shard() -> None:
    with InputSpool([]) as spool:
        assert (spool.files, spool.shards) == (0, [])


def test_a_spool_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with InputSpool(inputs(range(10))):
        pass
    assert list(tmp_path.iterdir()) == []


# Parts


def rows_of_shard() -> list[list[Row]]:
    """Every kind of row that there is."""
    rng = np.random.default_rng(0)

    def scored(file: bytes, **fields: Any) -> Row:
        scores = dict(zip(LABELS, rng.random(3, np.float32).tolist(), strict=True))
        return Row(file=file, scores=scores, embedding=rng.normal(size=5).astype(np.float32), **fields)

    flags = [
        [scored(flag.encode(), start=0.0, end=2.49, flags=(flag, *FLAGS), seconds=1e4)] for flag in FLAGS
    ]
    bad = [[Row(file=code.encode(), error=code, seconds=0.1)] for code in ERROR_CODES]
    windows = [scored(b"w", start=i * 0.1, end=i * 0.1 + 2.49, seconds=3.7) for i in range(7)]
    mean = scored(b"w", seconds=3.7)
    half = [
        scored(b"h", start=0.0, end=1.0, seconds=2.0),
        Row(file=b"h", start=1.0, end=2.0, error="invalid_score", seconds=2.0),
    ]
    return [
        *flags,
        *bad,
        [*windows, mean],
        half,
        [scored(b"tiny", start=0.0, end=1 / 16_000, seconds=1 / 16_000)],
    ]


def test_rows_come_back_to_the_last_bit() -> None:
    files = rows_of_shard()
    content = part_from_rows(files, LABELS, embedding_size=5)
    back = list(rows_from_part(content, [rows[0].file for rows in files], LABELS))  # type: ignore[misc]
    assert back == files  # dataclasses compare all but the embedding, None for None
    for row, original in zip(
        (row for rows in back for row in rows), (row for rows in files for row in rows), strict=True
    ):
        assert (row.embedding is None) == (original.scores is None)
        if row.embedding is not None:
            np.testing.assert_array_equal(row.embedding, original.embedding)
            assert row.embedding.dtype == np.float32


def test_a_part_is_the_same_bytes_each_time() -> None:
    assert part_from_rows(rows_of_shard(), LABELS, embedding_size=5) == part_from_rows(
        rows_of_shard(), LABELS, embedding_size=5
    )


def test_rows_without_embeddings_have_none() -> None:
    files = rows_of_shard()
    content = part_from_rows(files, LABELS)
    back = list(rows_from_part(content, [rows[0].file for rows in files], LABELS))  # type: ignore[misc]
    assert {row.embedding for rows in back for row in rows} == {None}


# Jobs


def scored_shard(spool: InputSpool, shard: Shard, score: float = 0.5) -> bytes:
    scores = dict.fromkeys(LABELS, score)
    return part_from_rows(
        [[Row(file=path, start=0.0, end=1.0, scores=scores)] for path in spool.sources(shard)], LABELS
    )


def test_what_is_put_is_there_in_the_next_job_too(tmp_path: Path) -> None:
    with InputSpool(inputs(range(3_000))) as spool:
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            assert not any(map(job.has, spool.shards))
            for shard in spool.shards[::2]:
                job.put(shard, scored_shard(spool, shard))
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            assert [job.has(shard) for shard in spool.shards] == [
                i % 2 == 0 for i in range(len(spool.shards))
            ]
            for shard in spool.shards[1::2]:
                job.put(shard, scored_shard(spool, shard))
            assert [row.file for rows in job.rows(spool) for row in rows] == places(spool)


def broken(kind: str, part: Path, other: Path) -> None:
    content = part.read_bytes()
    match kind:
        case "truncated":
            part.write_bytes(content[:-1])
        case "flipped":
            part.write_bytes(content[:1_000] + bytes([content[1_000] ^ 1]) + content[1_001:])
        case "empty":
            part.write_bytes(b"")
        case "of another shard":
            shutil.copy(other, part)
        case "of another shard, renamed":  # its own hash is right
            part.unlink()
            shutil.copy(
                other, part.with_name(part.name.partition("-")[0] + "-" + other.name.partition("-")[2])
            )
        case "gone":
            part.unlink()
        case "no part":
            part.with_name(part.name.partition("-")[0] + "-x.part").write_bytes(b"hello")
            part.unlink()


KINDS = ("truncated", "flipped", "empty", "of another shard", "of another shard, renamed", "no part", "gone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_part_is_no_part(tmp_path: Path, kind: str) -> None:
    with InputSpool(inputs(range(3_000))) as spool:
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            for shard in spool.shards:
                job.put(shard, scored_shard(spool, shard))
        first, second = spool.shards[:2]
        parts = {path.name.partition("-")[0]: path for path in tmp_path.glob(".scores.csv.rrtn/*.part")}
        broken(kind, parts[first.key], parts[second.key])
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            assert [shard for shard in spool.shards if not job.has(shard)] == [first]
            with pytest.raises(StoppedError, match=f"{first.key}.*run the command again"):
                list(job.rows(spool))
            job.put(first, scored_shard(spool, first))
            assert len(list(job.rows(spool))) == 3_000
            job.tidy(spool)
        left = [path.name.partition("-")[0] for path in tmp_path.glob(".scores.csv.rrtn/*.part")]
        assert sorted(left) == sorted(shard.key for shard in spool.shards)


def test_parts_that_no_shard_has_go_and_so_does_what_killed_writers_left(tmp_path: Path) -> None:
    target, folder = tmp_path / "sc[or]es.csv", tmp_path / ".sc[or]es.csv.rrtn"
    with InputSpool(inputs(range(3_000))) as spool, opened_job(target, SETTINGS, LABELS) as job:
        for shard in spool.shards:
            job.put(shard, scored_shard(spool, shard))
    (folder / ".0123-45.part.abcd1234.tmp").touch()
    ours = [tmp_path / f".sc[or]es.{kind}.abcd_234.tmp" for kind in ("csv", "embeddings.npy")]
    others = [
        tmp_path / name
        for name in (".sc[or]es.csv.x.csv.abcd1234.tmp", ".oes.csv.abcd1234.tmp", "scores.csv")
    ]
    for path in (*ours, *others):
        path.touch()
    with InputSpool(inputs(range(1, 3_000))) as spool, opened_job(target, SETTINGS, LABELS) as job:
        missing = [shard for shard in spool.shards if not job.has(shard)]
        assert len(missing) == 1
        job.put(missing[0], scored_shard(spool, missing[0]))
        job.tidy(spool)
        expected = {*(f"{path.name}" for path in folder.iterdir() if path.suffix != ".part")}
        assert expected == {"job.json", "lock"}
        assert len([*folder.glob("*.part")]) == len(spool.shards)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_other_settings_are_refused_with_each_difference(tmp_path: Path) -> None:
    with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS):
        pass
    other = {**SETTINGS, "model": "b" * 64, "window": 2.0, "new": True}
    with pytest.raises(ConfigError) as caught, opened_job(tmp_path / "scores.csv", other, LABELS):
        pass
    message = str(caught.value)
    for difference in (
        "model aaaaaaaa",
        "now bbbbbbbb",
        "window none, now 2.0",
        "new none, now True",
        "--overwrite",
    ):
        assert difference in message
    assert "batch_size" not in message
    with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS):  # the refused one has changed nothing
        pass


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    with InputSpool(inputs(range(10))) as spool:
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            job.put(spool.shards[0], scored_shard(spool, spool.shards[0]))
        with opened_job(tmp_path / "scores.csv", {**SETTINGS, "window": 1.0}, LABELS, overwrite=True) as job:
            assert not job.has(spool.shards[0])
        with (
            pytest.raises(ConfigError, match="window"),
            opened_job(tmp_path / "scores.csv", SETTINGS, LABELS),
        ):
            pass


def test_parts_whose_settings_are_lost_are_worth_nothing(tmp_path: Path) -> None:
    """They may be another model's."""
    with InputSpool(inputs(range(10))) as spool:
        with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
            job.put(spool.shards[0], scored_shard(spool, spool.shards[0]))
        (tmp_path / ".scores.csv.rrtn" / "job.json").unlink()
        with opened_job(tmp_path / "scores.csv", {**SETTINGS, "model": "b" * 64}, LABELS) as job:
            assert not job.has(spool.shards[0])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe"])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS):
        pass
    (tmp_path / ".scores.csv.rrtn" / "job.json").write_bytes(content)
    with (
        pytest.raises(ConfigError, match=r"job\.json.*--overwrite"),
        opened_job(tmp_path / "scores.csv", SETTINGS, LABELS),
    ):
        pass
    with opened_job(tmp_path / "scores.csv", SETTINGS, LABELS, overwrite=True):
        pass


def test_one_at_a_time_also_to_overwrite(tmp_path: Path) -> None:
    with InputSpool(inputs(range(10))) as spool, opened_job(tmp_path / "scores.csv", SETTINGS, LABELS) as job:
        job.put(spool.shards[0], scored_shard(spool, spool.shards[0]))
        for overwrite in (False, True):
            with (
                pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* scores there"),
                opened_job(tmp_path / "scores.csv", SETTINGS, LABELS, overwrite=overwrite),
            ):
                pass
        assert job.has(spool.shards[0])
        with opened_job(tmp_path / "other.csv", SETTINGS, LABELS):
            pass


def test_a_job_that_has_ended_is_free(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), opened_job(tmp_path / "scores.csv", SETTINGS, LABELS):
            raise KeyError


# N9: embeddings beside the table


def begun(table: Path, embedding: int | None, *, finished: bool = True) -> None:
    with opened_job(table, {**SETTINGS, "embedding": embedding}, LABELS, inputs=["in"]):
        if finished:
            table.touch()
            if embedding:
                embedding_path(table).touch()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"append": True}])
def test_n9_two_tables_do_not_share_one_file_of_embeddings(
    tmp_path: Path, finished: bool, flags: dict[str, bool]
) -> None:
    begun(tmp_path / "s.jsonl", 5, finished=finished)
    with pytest.raises(ConfigError, match=r"s\.embeddings\.npy is for the embeddings of s\.jsonl"):
        check_job(tmp_path / "s.csv", ["in"], embeddings=True, **flags)
    check_job(tmp_path / "s.csv", ["in"], **flags)  # which has none
    check_job(tmp_path / "s.parquet", ["in"], embeddings=True, **flags)  # which has them inside
    check_job(tmp_path / "s.jsonl", ["in"], embeddings=True, **flags)
    begun(tmp_path / "s.parquet", 5, finished=finished)
    check_job(tmp_path / "s.jsonl", ["in"], embeddings=True, **flags)


def test_n9_embeddings_of_a_table_whose_folder_is_gone_are_kept(tmp_path: Path) -> None:
    begun(tmp_path / "s.jsonl", 5)
    shutil.rmtree(tmp_path / ".s.jsonl.rrtn")
    for flags in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=r"s\.embeddings\.npy is for the embeddings of s\.jsonl"):
            check_job(tmp_path / "s.csv", ["in"], embeddings=True, **flags)
    (tmp_path / "s.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"s\.embeddings\.npy is there already"):
        check_job(tmp_path / "s.csv", ["in"], embeddings=True)
    check_job(tmp_path / "s.csv", ["in"], embeddings=True, overwrite=True)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_n9_a_table_reads_back_with_its_embeddings(tmp_path: Path, suffix: str) -> None:
    rows = [row for of_file in rows_of_shard() for row in of_file if not row.detail]
    table = tmp_path / f"t{suffix}"
    list(write_table(table, rows, LABELS, embedding_size=5))
    whole = table.read_bytes()
    embeddings = embedding_path(table).read_bytes() if suffix != ".parquet" else b""
    back = list(read_table(table, LABELS, 5))
    assert [row.file for row in back] == [row.file for row in rows]
    list(write_table(table, back, LABELS, embedding_size=5))
    assert table.read_bytes() == whole
    assert suffix == ".parquet" or embedding_path(table).read_bytes() == embeddings
    with pytest.raises(ConfigError, match="--append"):
        list(read_table(table, LABELS, 4))
    with pytest.raises(ConfigError, match="--append"):
        list(read_table(table, LABELS, None))
    with pytest.raises(ConfigError, match="--append"):
        list(read_table(table, ("Awe", "Joy"), 5))


@pytest.mark.parametrize(
    "content", ['{"inputs": 3}', '{"inputs": [3]}', '{"submissions": {"a": 1}, "inputs": "x"}']
)
def test_n9_inputs_that_cannot_be_read_are_refused(tmp_path: Path, content: str) -> None:
    with opened_job(tmp_path / "s.csv", SETTINGS, LABELS):
        pass
    (tmp_path / ".s.csv.rrtn/job.json").write_text(content)
    with pytest.raises(ConfigError):
        check_job(tmp_path / "s.csv", ["in"])
