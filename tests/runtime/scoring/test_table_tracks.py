"""Label tracks and the page from a table that `rrtn score` wrote."""

import csv
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from abandoned import abandon
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.reader import levels_of_file
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.scoring.folder import score_to_table
from rrtn.runtime.scoring.local_engine import LocalEngine
from rrtn.runtime.scoring.table_tracks import write_tracks
from rrtn.runtime.system import failpoints
from rrtn_processes import Server

RATE = 16_000


@pytest.fixture
def table(tmp_path: Path, tiny_model: Path) -> Path:
    """Two recordings with two bursts each, of one name in two folders, one without, and a bad file."""
    time = np.arange(RATE) / RATE
    samples = np.random.default_rng(0).normal(size=10 * RATE) * 1e-4
    for begin in (2, 6):
        samples[begin * RATE : (begin + 1) * RATE] += 0.1 * begin * np.sin(2 * np.pi * 500 * time)
    for name in ("a/x.wav", "b/x.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, samples, RATE)
    soundfile.write(tmp_path / "in/quiet <b>.wav", samples[:RATE], RATE)
    (tmp_path / "in/z.wav").write_text("no audio")
    with (
        Scorer(tiny_model, "cpu", segment="level") as scorer,
        InputSpool(inputs_from_arguments([bytes(tmp_path / "in")])) as spool,
    ):
        score_to_table(LocalEngine(scorer), spool, tmp_path / "scores.csv")
    return tmp_path / "scores.csv"


def test_every_recording_has_a_track_under_a_name_of_its_own(table: Path, tmp_path: Path) -> None:
    kinds = ("audacity", "raven", "textgrid", "html")
    files = write_tracks(table, tmp_path / "tracks", kinds)
    assert sorted(files) == sorted((tmp_path / "tracks").iterdir())
    names = {path.name.partition(".")[0] for path in files}
    assert {name[-6:] for name in names} == {"in_a_x", "in_b_x", "et <b>", "scores"}
    (track,) = (path for path in files if path.name.endswith("a_x.wav.txt"))
    places = [line.split("\t")[:2] for line in track.read_text().splitlines()]
    assert places == [["1.950000", "3.050000"], ["5.950000", "7.050000"]]
    (quiet,) = (path for path in files if path.name == "quiet <b>.TextGrid")
    assert "xmax = 1.000000" in quiet.read_text()
    assert (tmp_path / "tracks/quiet <b>.txt").read_text() == ""


def test_tracks_are_of_the_channel_that_was_scored(tmp_path: Path, tiny_model: Path) -> None:
    sounds = np.random.default_rng(0).normal(size=(4 * RATE, 2)) * (1e-3, 0.1)
    for name, samples in (("two", sounds), ("quiet", sounds[:, 0]), ("loud", sounds[:, 1])):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)

    def drawn(name: str, channel: int | None) -> tuple[list[str], set[str]]:
        """The lines of the levels on the page, and Raven's channels."""
        folder = tmp_path / f"{name}{channel}"
        folder.mkdir()
        with (
            Scorer(tiny_model, "cpu", window=0.5, channel=channel) as scorer,
            InputSpool(inputs_from_arguments([bytes(tmp_path / f"{name}.wav")])) as spool,
        ):
            score_to_table(LocalEngine(scorer), spool, folder / "scores.csv")
        write_tracks(folder / "scores.csv", folder, ("raven", "html"))
        rows = (folder / f"{name}.selections.txt").read_text().splitlines()
        page = (folder / "scores.html").read_text()
        return re.findall(r'points="[^"]*"', page), {row.split("\t")[2] for row in rows[1:]}

    for name, channel in (("quiet", 1), ("loud", 2)):
        lines, channels = drawn("two", channel)
        assert lines
        assert (lines, channels) == (drawn(name, None)[0], {str(channel)})


def test_a_recording_whose_first_part_has_no_scores_keeps_the_others(table: Path, tmp_path: Path) -> None:
    header, *rows = csv.reader(table.read_text().splitlines())
    first = next(row for row in rows if row[0].endswith("a/x.wav"))
    first[3:] = ["invalid_score" if name == "error" else "" for name in header[3:]]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    files = write_tracks(table, tmp_path / "tracks", ("audacity",))
    (track,) = (path for path in files if path.name.endswith("a_x.wav.txt"))
    assert [line.split("\t")[0] for line in track.read_text().splitlines()] == ["5.950000"]


def test_names_that_are_too_long_for_a_track_are_cut_and_stay_apart(table: Path, tmp_path: Path) -> None:
    text = table.read_text()
    long = "\u00e9" * 125
    for name in ("a/x.wav", "b/x.wav"):
        text = text.replace(name, f"{name[0]}/{long}{name[0]}.wav")
    table.write_text(text.replace("quiet <b>", "n" * 240))
    files = write_tracks(table, tmp_path / "tracks", ("raven", "textgrid", "html"))
    assert sorted(files) == sorted((tmp_path / "tracks").iterdir())
    assert len({path.name.casefold() for path in files}) == 7
    assert {len(os.fsencode(path.name)) for path in files if "\u00e9" in path.name} == {248, 254}
    assert f"{'n' * 240}.TextGrid" in {path.name for path in files}


def test_nothing_is_replaced_unless_it_is_asked_for(table: Path, tmp_path: Path) -> None:
    (tmp_path / "tracks").mkdir()
    mine = tmp_path / "tracks/quiet <b>.txt"
    mine.write_text("my own labels")
    with pytest.raises(ConfigError, match="is there already"):
        write_tracks(table, tmp_path / "tracks", ["audacity"])
    assert mine.read_text() == "my own labels"
    assert [*(tmp_path / "tracks").iterdir()] == [mine]
    write_tracks(table, tmp_path / "tracks", ["audacity"], overwrite=True)
    assert mine.read_text() == ""


def test_a_command_that_was_stopped_goes_on_and_keeps_what_is_there(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kinds = tmp_path / "tracks", ("audacity", "html")
    with monkeypatch.context() as patch:
        patch.setenv("RRTN_FAILPOINT", "write.begin:eio:3")
        patch.setattr(failpoints, "_passed", 0)
        with pytest.raises(OSError, match="Input/output"):
            write_tracks(table, folder, kinds)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 2
    for name in ("quiet <b>.txt", "scores.html"):
        abandon(folder / name)  # of a command that was killed
    files = write_tracks(table, folder, kinds)
    assert sorted(files) == sorted(folder.iterdir())
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("edited", ["quiet <b>.txt", "scores.html"])
def test_beside_an_edited_file_nothing_is_written(table: Path, tmp_path: Path, edited: str) -> None:
    write_tracks(table, tmp_path / "tracks", ("audacity", "html"))
    mine = tmp_path / "tracks" / edited
    for path in (tmp_path / "tracks").iterdir():
        if path != mine:
            path.unlink()
    mine.write_text("my own labels")
    with pytest.raises(ConfigError, match="is there already"):
        write_tracks(table, tmp_path / "tracks", ("audacity", "html"))
    assert [*(tmp_path / "tracks").iterdir()] == [mine]


def test_what_is_no_table_is_refused(tmp_path: Path, table: Path) -> None:
    with pytest.raises(ConfigError, match=r"--as.*midi.*audacity"):
        write_tracks(table, tmp_path / "tracks", ["midi"])
    with pytest.raises(ConfigError, match=r"--as.*empty.*audacity"):
        write_tracks(table, tmp_path / "tracks", [])
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(ConfigError, match="no such table"):
        write_tracks(tmp_path / "other.csv", tmp_path / "tracks", ["audacity"])
    table.write_text("a,b\n")
    with pytest.raises(ConfigError, match="columns a,b"):
        write_tracks(table, tmp_path / "tracks", ["audacity"])


class Page(HTMLParser):
    """Counts the elements, and keeps the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_levels_parts_and_scores(table: Path, tmp_path: Path) -> None:
    (tmp_path / "in/b/x.wav").unlink()
    write_tracks(table, tmp_path / "tracks", ["html"])
    source = (tmp_path / "tracks/scores.html").read_text()
    page = Page(source)
    assert (page.counts["section"], page.counts["svg"], page.counts["rect"]) == (3, 3, 4)
    assert page.counts["polyline"] == 2  # the level of the one that is gone cannot be drawn
    assert page.counts["path"] == 3 * 2  # labels, of recordings with bursts
    assert "quiet <b>" in page.text
    assert "b" not in page.counts
    assert "not there any more" in page.text
    assert not re.search(r"<script|https?://|src=", source)


def test_relative_names_are_of_the_folder_in_which_they_were_scored(
    tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length of a recording that is not there is unknown, which is said."""
    for folder, seconds in (("in", 9), ("other", 12)):
        (tmp_path / folder).mkdir()
        noise = np.random.default_rng(0).normal(size=seconds * RATE) * 0.1
        soundfile.write(tmp_path / folder / "x.wav", noise, RATE)
    monkeypatch.chdir(tmp_path / "in")
    with (
        Scorer(scorer.bundle, "cpu", window=2.0, hop=3.0) as windows,
        InputSpool(inputs_from_arguments(["x.wav"])) as spool,
    ):
        score_to_table(LocalEngine(windows), spool, tmp_path / "t.csv")
    monkeypatch.chdir(tmp_path / "other")

    def length() -> tuple[str, list[str]]:
        said: list[str] = []
        (path,) = write_tracks(
            tmp_path / "t.csv", tmp_path / "tracks", ["textgrid"], overwrite=True, say=said.append
        )
        (found,) = re.findall(r"xmax = (.*)", path.read_text().partition("tiers")[0])
        return found, said

    assert length() == ("9.000000", [])
    (tmp_path / "in/x.wav").rename(tmp_path / "away.wav")
    found, said = length()
    assert found == "8.000000"  # where the last window ends
    assert [line[:33] for line in said] == ["note: 1 of 1 recording could not "]
    (tmp_path / "in").rmdir()
    assert (length()[0], len(length()[1])) == ("12.000000", 1)


def test_raven_selects_up_to_the_highest_frequency_that_the_model_hears(
    tmp_path: Path, tiny_model_of: Callable[..., Path]
) -> None:
    """A table that was begun before this was noted goes on, and means the default's."""
    model = tiny_model_of(tmp_path / "model.onnx", FrontendSpec(sampling_rate=32_000, f_max=14_000))
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).normal(size=2 * RATE) * 0.1, RATE)
    job, highest = tmp_path / ".t.csv.rrtn/job.json", []
    for _ in range(2):
        with (
            Scorer(model, "cpu", window=0.5, hop=1.0) as scorer,
            InputSpool(inputs_from_arguments([bytes(tmp_path / "x.wav")])) as spool,
        ):
            score_to_table(LocalEngine(scorer), spool, tmp_path / "t.csv")
        (path,) = write_tracks(tmp_path / "t.csv", tmp_path / "tracks", ["raven"], overwrite=True)
        highest.append({line.split("\t")[6] for line in path.read_text().splitlines()[1:]})
        document = json.loads(job.read_text())
        document.pop("f_max", None)
        job.write_text(json.dumps(document))
    assert highest == [{"14000.0"}, {"8000.0"}]


def test_levels_are_those_of_the_loudest_10_ms_of_each_second(tmp_path: Path) -> None:
    samples = np.zeros(round(3.5 * RATE))
    samples[RATE + 160 : RATE + 320] = 0.5
    samples[3 * RATE :] = 0.1
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    seconds, levels = levels_of_file(tmp_path / "a.wav")
    assert seconds == 3.5
    np.testing.assert_allclose(levels, [-100, 20 * np.log10(0.5), -100, -20], atol=1e-4)


def test_the_command(runtime_server: Server, table: Path, tmp_path: Path) -> None:
    ended = runtime_server.start("tracks", "scores.csv", "--json", cwd=tmp_path).wait()
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["out"] == "scores.tracks"
    assert len(document["files"]) == 4
    assert all((tmp_path / name).is_file() for name in document["files"])
    assert "4 files -> scores.tracks" in ended.err
