"""From Python: a folder becomes a table, and a call that was stopped is continued by the next one."""

import csv
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rrtn.runtime import Scorer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.errors import ConfigError, DataError, StoppedError
from rrtn.runtime.scoring.engine import ScoringEngine, settings_of_scorer
from rrtn.runtime.scoring.error_budget import ErrorBudget
from rrtn.runtime.scoring.folder import (
    NoBar,
    OpenBar,
    ScoringSummary,
    _score_shards,
    score_to_rows,
    score_to_table,
)
from rrtn.runtime.scoring.local_engine import LocalEngine
from rrtn.runtime.scoring.table_job import opened_job
from rrtn.runtime.tables.rows import Row


@pytest.fixture
def folder(tmp_path: Path, real_clips: list[Path]) -> Path:
    """Twelve real clips, and behind them a file that is no audio."""
    (tmp_path / "in").mkdir()
    for clip in real_clips:
        shutil.copy(clip, tmp_path / "in" / f"good-{clip.name}")
    (tmp_path / "in" / "text.wav").write_text("this is no audio")
    return tmp_path / "in"


@pytest.fixture
def engine(scorer: Scorer) -> LocalEngine:
    return LocalEngine(scorer)


@pytest.fixture
def score(engine: LocalEngine, folder: Path, tmp_path: Path) -> Callable[..., ScoringSummary]:
    def run(**options: object) -> ScoringSummary:
        with InputSpool(inputs_from_arguments([os.fsencode(folder)])) as spool:
            return score_to_table(engine, spool, tmp_path / "t.csv", **options)  # type: ignore[arg-type]

    return run


class Bar:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.files, self.done, self.note = 0, 0, ""

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + count, note

    def watch(self, in_work: Callable[[], str]) -> None:
        self.in_work = in_work

    def opened(self) -> OpenBar:
        @contextmanager
        def open_bar(files: int) -> Iterator[Bar]:
            self.files = files
            yield self

        return open_bar


def test_a_table_has_the_rows_of_the_scorer(
    score: Callable[..., ScoringSummary], scorer: Scorer, folder: Path, tmp_path: Path
) -> None:
    bar = Bar()
    summary = score(open_bar=bar.opened())
    with (tmp_path / "t.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    expected = list(scorer.score_files(sorted(folder.iterdir())))
    assert [record["file"] for record in records] == [os.fsdecode(row.file) for row in expected]
    for record, row in zip(records, expected, strict=True):
        assert record["error"] == row.error
        for label, score_of_label in (row.scores or {}).items():
            assert float(record[label]) == pytest.approx(score_of_label, abs=1e-6)
    assert (bar.files, bar.done, bar.note) == (13, 13, "1 error")
    assert (
        summary.to_dict().items()
        >= {
            "files": 13,
            "scored": 12,
            "errors": {"unsupported_format": 1},
            "backend": "cpu",
            "variant": "fp32",
            "out": str(tmp_path / "t.csv"),
            "scored_now": 13,
        }.items()
    )
    assert set(summary.busy) == {"reading and decoding", "features", "model", "writing"}


def test_how_busy_each_part_was_is_of_this_table_alone(
    score: Callable[..., ScoringSummary], scorer: Scorer
) -> None:
    scorer.timing.add(decoding=1e6, features=1e6, model=1e6)
    busy = score().busy
    assert all(0 < share < 2 for share in busy.values()), busy


class FullDisk:
    """A table's parts that cannot be kept."""

    def put(self, *of_part: object) -> None:
        raise StoppedError("scores.csv", "No space left on device")


def test_a_full_disk_is_said_though_the_error_budget_is_spent_meanwhile() -> None:
    class Engine:
        def parts(self, *of_table: object) -> Iterator[tuple[str, bytes]]:
            yield "shard", b""
            raise StoppedError("x.wav", "the first bad file, with --fail-fast")

    engine, spool = Engine(), SimpleNamespace(inputs=lambda shard: [])
    with pytest.raises(StoppedError, match="No space left on device") as caught:
        _score_shards(engine, FullDisk(), spool, ["shard"], ErrorBudget(), NoBar())  # type: ignore[arg-type]
    assert "the first bad file" in str(caught.value.__context__)


def test_the_same_call_scores_nothing_twice(score: Callable[..., ScoringSummary], tmp_path: Path) -> None:
    score()
    table = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv").unlink()
    said: list[str] = []
    again = score(say=said.append)
    assert (again.scored_now, again.busy, again.totals.files) == (0, {}, 13)
    assert said == ["13 files scored before and kept (--overwrite scores everything again)"]
    assert (tmp_path / "t.csv").read_bytes() == table
    assert score(overwrite=True).scored_now == 13


def test_a_spent_error_budget_leaves_no_table(score: Callable[..., ScoringSummary], tmp_path: Path) -> None:
    with pytest.raises(StoppedError) as caught:
        score(error_budget=ErrorBudget(fail_fast=True))
    assert "text.wav unsupported_format" in caught.value.subject
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    "limit", [{"fail_fast": True}, {"most_in_a_row": 2}, {"most_in_a_row": 1}, {"most_fraction": 0.1}]
)
def test_files_that_were_scored_before_count_for_the_error_budget_too(
    score: Callable[..., ScoringSummary], tmp_path: Path, folder: Path, limit: dict[str, Any]
) -> None:
    (folder / "text2.wav").write_text("no audio, either")
    for _ in range(3):
        with pytest.raises(StoppedError, match=r"text2?\.wav|all files"):
            score(error_budget=ErrorBudget(**limit))
        assert not (tmp_path / "t.csv").exists()
    assert (score().scored_now == 0) == ("most_fraction" in limit)
    table = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv").unlink()
    with pytest.raises(StoppedError):
        score(error_budget=ErrorBudget(**limit))
    assert not (tmp_path / "t.csv").exists()
    score(error_budget=ErrorBudget(most_in_a_row=3, most_fraction=0.5))
    assert (tmp_path / "t.csv").read_bytes() == table


def test_a_bad_run_goes_on_from_files_that_were_scored_before(
    score: Callable[..., ScoringSummary], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrtn.runtime.audio.input_spool.MEAN_FILES", 2**40)  # no name ends a shard
    monkeypatch.setattr("rrtn.runtime.audio.input_spool.MOST_FILES", 13)
    score(error_budget=ErrorBudget(most_in_a_row=2))
    (folder / "text2.wav").write_text("no audio, either")
    said: list[str] = []
    with pytest.raises(StoppedError, match="2 bad files in a row"):
        score(error_budget=ErrorBudget(most_in_a_row=2), say=said.append)
    assert said[0].startswith("13 files scored before")


def test_two_files_of_one_file_id_are_refused_before_the_work(
    score: Callable[..., ScoringSummary], engine: LocalEngine, tmp_path: Path, folder: Path
) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "text.wav", folder / "sub")
    bar = Bar()
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"more than one file has the File_ID \[text\]"):
            score(submission=tmp_path / "s.csv", open_bar=bar.opened(), overwrite=overwrite)
    with (
        pytest.raises(DataError, match="File_ID"),
        InputSpool(inputs_from_arguments([os.fsencode(folder)])) as spool,
    ):
        score_to_rows(engine, spool, list, submission=tmp_path / "s.csv", open_bar=bar.opened())
    assert bar.done == 0
    assert not (tmp_path / ".t.csv.rrtn").exists()


def test_the_ten_emotions_are_submitted_in_the_challenges_order(engine: LocalEngine) -> None:
    """Hume-VB's tables have two orders."""
    assert engine.loaded.submitted == engine.loaded.labels
    settings = {**engine.loaded.settings, "labels": sorted(EMOTIONS)}
    assert replace(engine.loaded, settings=settings).submitted == EMOTIONS


def test_a_table_stays_where_its_submission_is_refused(
    score: Callable[..., ScoringSummary], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="1 of 13 files without scores"):
        score(submission=tmp_path / "s.csv")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 14
    assert not (tmp_path / "s.csv").exists()
    assert score().scored_now == 0


def test_append_from_another_working_directory_is_refused(
    engine: LocalEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the relative names in the table are of other files, whose rows would go or stand twice."""
    shutil.copytree(folder, tmp_path / "other")
    job = tmp_path / ".t.csv.rrtn/job.json"

    def score(where: Path, *names: str, append: bool = False) -> None:
        monkeypatch.chdir(where)
        with InputSpool(inputs_from_arguments(names)) as spool:
            spool.named = tuple(map(os.path.realpath, names))
            score_to_table(engine, spool, tmp_path / "t.csv", append=append)

    score(folder, "text.wav")
    before = (tmp_path / "t.csv").read_bytes(), job.read_bytes()
    for name in ("text.wav", str(folder / "text.wav")):
        with pytest.raises(ConfigError, match="relative to") as caught:
            score(tmp_path / "other", name, append=True)
        assert str(folder) in str(caught.value)
        assert str(tmp_path / "other") in str(caught.value)
    assert ((tmp_path / "t.csv").read_bytes(), job.read_bytes()) == before
    score(tmp_path, "in/text.wav")  # the same file: all names are new
    score(tmp_path, "other/text.wav", append=True)
    names = [line.partition(",")[0] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert names == ["in/text.wav", "other/text.wav"]
    document = json.loads(job.read_text())
    assert document.pop("relative_to") == [str(tmp_path)]
    job.write_text(json.dumps(document))  # as of an older rrtn
    score(folder, "text.wav", append=True)
    (tmp_path / "other").rename(tmp_path / "moved")
    document["relative_to"] = [str(tmp_path / "other")]
    job.write_text(json.dumps(document))  # a project that was moved
    score(tmp_path / "moved", "text.wav", append=True)


def test_rows_that_overwrite_had_not_replaced_yet_are_of_unknown_settings(
    engine: LocalEngine, score: Callable[..., ScoringSummary], folder: Path, tmp_path: Path
) -> None:
    job, other = tmp_path / ".t.csv.rrtn/job.json", tmp_path / "other.wav"
    shutil.copy(next(folder.glob("*.wav")), other)

    def append() -> ScoringSummary:
        with InputSpool(inputs_from_arguments([os.fsencode(other)])) as spool:
            return score_to_table(engine, spool, tmp_path / "t.csv", append=True)

    score()
    assert append().kept_rows_checked
    with pytest.raises(StoppedError):
        score(overwrite=True, error_budget=ErrorBudget(fail_fast=True))
    for _ in range(2):
        assert not append().kept_rows_checked
    score()  # the whole table anew
    assert "replaces" not in json.loads(job.read_text())
    assert append().kept_rows_checked


def test_absolute_names_are_appended_from_any_working_directory(
    score: Callable[..., ScoringSummary], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score()
    table = (tmp_path / "t.csv").read_bytes()
    monkeypatch.chdir(folder)
    assert score(append=True).kept_rows == 0
    assert (tmp_path / "t.csv").read_bytes() == table


def test_a_second_table_has_the_decoders_of_the_first(
    engine: LocalEngine, folder: Path, tmp_path: Path
) -> None:
    pids = []
    for table in ("a.csv", "b.csv"):
        with InputSpool(inputs_from_arguments([os.fsencode(folder)])) as spool:
            assert score_to_table(engine, spool, tmp_path / table).scored_now == 13
        (pool,) = engine.scorer._idle
        pids.append({decoder._process.pid for decoder in pool._decoders})
    assert pids[0] <= pids[1]  # another one may have been started


def test_rows_come_without_a_table(engine: LocalEngine, scorer: Scorer, folder: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    with InputSpool(inputs_from_arguments([os.fsencode(folder)])) as spool:
        summary = score_to_rows(engine, spool, rows.extend)
    assert rows == list(scorer.score_files([os.fsencode(path) for path in sorted(folder.iterdir())]))
    assert (summary.totals.scored, summary.scored_now, summary.out) == (12, 13, None)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("in", "tiny.onnx")] == []


def test_the_scorer_of_this_machine_is_an_engine(engine: LocalEngine, scorer: Scorer) -> None:
    any_engine: ScoringEngine = engine
    assert any_engine.loaded.settings == settings_of_scorer(scorer)
    assert any_engine.loaded.labels == scorer.labels
    assert any_engine.description.startswith(f"{scorer.bundle.path}: tiny.onnx on cpu")


def test_n13_a_table_depends_on_the_second_reader_where_there_is_one(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = settings_of_scorer(scorer)
    assert with_it["second_reader"] == f"PyAV {importlib.metadata.version('av')}"
    monkeypatch.setitem(sys.modules, "av", None)
    without = settings_of_scorer(scorer)
    assert with_it == {**without, "second_reader": with_it["second_reader"]}
    with opened_job(tmp_path / "scores.csv", without, scorer.labels):
        pass
    with pytest.raises(ConfigError) as refused, opened_job(tmp_path / "scores.csv", with_it, scorer.labels):
        pass
    assert refused.value.came == f"begun with second_reader none, now {with_it['second_reader']}"
    assert "--overwrite" in refused.value.fix


def test_a_table_that_somebody_changed_is_not_written_over(
    score: Callable[..., ScoringSummary], folder: Path, tmp_path: Path
) -> None:
    score()
    table = tmp_path / "t.csv"
    whole = table.read_bytes()
    assert score().scored_now == 0  # it is as it was
    for mine in (whole.replace(b",", b";"), b"my notes\n", b""):
        table.write_bytes(mine)
        with pytest.raises(
            ConfigError, match=r"t\.csv \| was changed since rrtn wrote it \| .* move it away"
        ):
            score()
        assert table.read_bytes() == mine
    table.rename(tmp_path / "mine.csv")
    assert score().scored_now == 0
    assert table.read_bytes() == whole
    table.write_bytes(b"my notes\n")
    assert score(overwrite=True).scored_now == 13
    assert table.read_bytes() == whole
    (folder / "text.wav").unlink()
    score(append=True)
    assert table.read_bytes() != whole  # the row of the file that is gone stands first
    appended = table.read_bytes()
    score(append=True)
    assert table.read_bytes() == appended
    score()
    assert len(table.read_bytes().splitlines()) == 1 + 12
