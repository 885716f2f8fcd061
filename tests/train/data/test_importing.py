"""One's own table, the challenges' layouts and audformat become a folder that reads as it should."""

import itertools
import math
import re
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError, DataError, MissingExtraError, StoppedError
from rrtn.runtime.system.files import atomic_path, temporary_name
from rrtn.train.config import DataConfig, config_from_dict
from rrtn.train.data import importing
from rrtn.train.data.data_set import DataSet
from rrtn.train.data.importing import (
    Imported,
    ImportRequest,
    import_data,
    shares_of_text,
    splits_of_speakers,
)
from rrtn.train.data.places import DataPlaces, with_settings_of_data
from rrtn.train.data.reading import data_of_settings

PEOPLE = [f"p{i % 6}" for i in range(24)]


def imported(source: Path, out: Path, **options: object) -> Imported:
    settings = options.pop("settings", {})
    places = options.pop("places", DataPlaces())
    return import_data(ImportRequest(source=source, out=out, settings=settings, places=places, **options))  # type: ignore[arg-type]


def as_training_reads_it(out: Path) -> DataSet:
    document = with_settings_of_data({"data": {"dir": str(out)}})
    return data_of_settings(out, config_from_dict(document, source="test").data)


def sounds(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A table as a German Excel saves it, without a split, beside a folder of MP3."""
    sounds(tmp_path / "takes", [f"{i:02d}.mp3" for i in range(24)])
    lines = ["Datei;participant;Age;Valence"]
    lines += [f"{i:02d};{who};{20 + i};{i % 9 + 1},5" for i, who in enumerate(PEOPLE)]
    (tmp_path / "own.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    return tmp_path / "own.csv"


def test_a_table_of_ones_own_is_split_by_speakers_and_refers_to_its_audio(own: Path, tmp_path: Path) -> None:
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    out = tmp_path / "out"
    made = imported(own, out, places=places, settings={"scale": ["1:10"]}, shares=(0.5, 0.25, 0.25))
    data = as_training_reads_it(out)
    assert sorted(path.name for path in out.iterdir()) == ["data.toml", "data_info.csv"]
    assert {name: split.clips for name, split in data.splits.items()} == {
        name: split.clips for name, split in made.data.splits.items()
    }
    assert data.targets == ("Valence",)
    of_split = {name: {clip.speaker for clip in split.clips} for name, split in data.splits.items()}
    assert sum(map(len, of_split.values())) == 6
    assert sum(len(split.clips) for split in data.splits.values()) == 24
    assert {name: len(people) for name, people in of_split.items()} == {"Train": 3, "Val": 2, "Test": 1}
    clip = data.splits["Train"].clips[0]
    assert clip.path == tmp_path / f"takes/{clip.file_id}.mp3"
    assert data.splits["Train"].rated[0, 0] == int(clip.file_id) % 9 + 1.5
    assert any("split by whole speakers, seed 0" in note for note in made.notes)


def test_an_import_tells_speakers_that_may_be_one(own: Path, tmp_path: Path) -> None:
    """Where it splits by whole speakers, and where the table says the split."""
    lines = own.read_text(encoding="utf-8-sig").replace(";p3;", ";14.0;").replace(";p0;", ";14;").splitlines()
    splits = ["Split", *["train"] * 12, *["dev"] * 12]
    for name, rows in (("a", lines), ("b", [";".join(row) for row in zip(lines, splits, strict=True)])):
        own.write_text("\n".join(rows))
        places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
        made = imported(own, tmp_path / name, places=places, settings={"scale": ["1:10"]})
        assert "speakers that may be one: '14' = '14.0'" in made.notes


def test_a_split_that_is_there_stays(own: Path, tmp_path: Path) -> None:
    lines = own.read_text(encoding="utf-8-sig").splitlines()
    splits = ["partition", *["train"] * 12, *["dev"] * 8, *["test"] * 4]
    own.write_text("\n".join(f"{line};{split}" for line, split in zip(lines, splits, strict=True)))
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    made = imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"]})
    assert [len(split.clips) for split in made.data.splits.values()] == [12, 8, 4]
    again = imported(
        own, tmp_path / "other", places=places, settings={"scale": ["1:10"]}, shares=(0.5, 0.5, 0.0)
    )
    assert len(again.data.splits["Test"].clips) == 0


def test_a_table_of_train_and_test_gets_a_val_out_of_train_by_speakers(own: Path, tmp_path: Path) -> None:
    """Test stays as it is. The shares of --split deal all clips anew, as with any table."""
    lines = own.read_text(encoding="utf-8-sig").splitlines()
    splits = ["partition", *("test" if who in ("p1", "p4") else "train" for who in PEOPLE)]
    own.write_text("\n".join(f"{line};{split}" for line, split in zip(lines, splits, strict=True)))
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    made = imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"]})
    of_split = {name: {clip.speaker for clip in split.clips} for name, split in made.data.splits.items()}
    assert of_split["Test"] == {"p1", "p4"}
    assert of_split["Train"] | of_split["Val"] == {"p0", "p2", "p3", "p5"}
    assert {name: len(people) for name, people in of_split.items()} == {"Train": 3, "Val": 1, "Test": 2}
    assert made.notes == (
        "no clip in Val: one was taken out of Train, by whole speakers, seed 0: Train 12, Val 4, Test 8",
    )
    other = imported(own, tmp_path / "other", places=places, settings={"scale": ["1:10"]}, seed=3)
    people = [{clip.speaker for clip in made.data.splits["Val"].clips} for made in (made, other)]
    assert people[0] != people[1]
    anew = imported(own, tmp_path / "anew", places=places, settings={"scale": ["1:10"]}, shares=(0.5, 0.5, 0))
    assert len(anew.data.splits["Test"].clips) == 0
    splits = ["partition", *("train" if who == "p1" else "test" for who in PEOPLE)]
    rows = [f"{line};{split}" for line, split in zip(lines, splits, strict=True)]
    for kept in (rows, [rows[0], *(row for row in rows if row.endswith("train"))]):
        own.write_text("\n".join(kept))
        with pytest.raises(DataError, match=r"no clip in Val, and Train is of 1 speaker \| .* deal all"):
            imported(own, tmp_path / "one", places=places, settings={"scale": ["1:10"]})


def test_clips_without_a_label_are_told_where_a_split_deals_them_to_train(own: Path, tmp_path: Path) -> None:
    """As those of a hidden Test are."""
    lines = own.read_text(encoding="utf-8-sig").splitlines()
    own.write_text("\n".join(lines[:17] + [f"{line.rpartition(';')[0]};" for line in lines[17:]]))
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    made = imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"]}, shares=(0.5, 0.5, 0))
    labels = [np.isnan(split.ratings).all(axis=1).sum() for split in made.data.splits.values()]
    assert sum(labels[:2]) == 8
    told = f"without any label: {labels[0]} of 12 clips in Train, {labels[1]} of 12 clips in Val"
    assert told in made.notes


def test_a_folder_that_was_imported_is_imported_again_by_its_own_settings(own: Path, tmp_path: Path) -> None:
    """And so is a table with a data.toml beside it. Flags win over these settings."""
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    first = imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"], "channel": 1})
    for source, name in ((tmp_path / "out", "a"), (tmp_path / "out/data_info.csv", "b")):
        again = imported(source, tmp_path / name, shares=(0.5, 0.5, 0.0))
        assert sum(len(split.clips) for split in again.data.splits.values()) == 24
        settings = (tmp_path / "out/data.toml").read_text()
        assert (tmp_path / name / "data.toml").read_text() == settings
        assert len(again.data.splits["Test"].clips) == 0 < len(first.data.splits["Test"].clips)
    sounds(tmp_path / "moved", [f"{i:02d}.flac" for i in range(24)])
    moved = imported(
        tmp_path / "out",
        tmp_path / "c",
        places=DataPlaces(audio=tmp_path / "moved"),
        settings={"scale": ["0:20"], "targets": None},
    )
    assert moved.data.splits["Train"].clips[0].path.suffix == ".flac"
    assert (str(moved.data.columns.scales[0]), moved.data.channel) == ("0:20", 1)
    (tmp_path / "data.toml").write_text('file_column = "Datei"\naudio = "takes"\nscale = ["1:10"]\n')
    assert imported(own, tmp_path / "d").data.targets == ("Valence",)
    assert "Datei" not in (tmp_path / "d/data.toml").read_text()
    for others in ('csv = "other.csv"\ntargets = ["Joy"]\n', 'package = "of another program"\n'):
        (tmp_path / "data.toml").write_text(others)
        flags = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
        made = imported(own, tmp_path / f"e{len(others)}", places=flags, settings={"scale": ["1:10"]})
        assert made.data.targets == ("Valence",)


def test_what_is_refused_leaves_nothing(own: Path, tmp_path: Path) -> None:
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    with pytest.raises(DataError, match=r"Valence is out of range: .* --scale 1:10"):
        imported(own, tmp_path / "out", places=places)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"no column File_ID; .* \| --file-column NAME"):
        imported(own, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(DataError, match="not an empty folder"):
        imported(own, tmp_path / "full", places=places)
    with pytest.raises(DataError, match="not there"):
        imported(tmp_path / "nowhere", tmp_path / "out")


def test_what_a_killed_import_left_is_gone_on_with(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is the last file. A data.toml of other settings is somebody's."""
    places, out = DataPlaces(audio=tmp_path / "takes", file_column="Datei"), tmp_path / "out"
    written: list[str] = []
    monkeypatch.setattr(
        importing, "write_bytes", lambda path, content: (written.append(path.name), path.write_bytes(content))
    )
    imported(own, out, places=places, settings={"scale": ["1:10"]})
    assert written == ["data.toml", "data_info.csv"]
    table = (out / "data_info.csv").read_bytes()
    (out / "data_info.csv").unlink()
    settings = (out / "data.toml").read_bytes()
    with pytest.raises(DataError, match="not an empty folder"):
        imported(own, out, places=places, settings={"scale": ["0:10"]})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"data.toml": settings}
    for name in ("data.toml", "data_info.csv"):
        temporary_name(out / name).touch()
    imported(own, out, places=places, settings={"scale": ["1:10"]})
    assert (out / "data_info.csv").read_bytes() == table
    assert len([*out.iterdir()]) == 2
    with pytest.raises(DataError, match="not an empty folder"):
        imported(own, out, places=places, settings={"scale": ["1:10"]})


def test_two_imports_into_one_folder_take_turns(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one comes while the first one writes: it takes nothing away, and is refused afterwards."""
    places, out = DataPlaces(audio=tmp_path / "takes", file_column="Datei"), tmp_path / "new/out"
    refused: list[DataError] = []

    def again() -> None:
        with pytest.raises(DataError, match="not an empty folder") as caught:
            imported(own, out, places=places, settings={"scale": ["1:10"]})
        refused.append(caught.value)

    second = threading.Thread(target=again)

    def written_slowly(path: Path, content: bytes) -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
            if second.ident is None:
                second.start()
                second.join(0.3)  # it waits for its turn: without one it would be done by then

    monkeypatch.setattr(importing, "write_bytes", written_slowly)
    imported(own, out, places=places, settings={"scale": ["1:10"]})
    second.join()
    assert len(refused) == 1
    assert sorted(path.name for path in out.iterdir()) == ["data.toml", "data_info.csv"]
    assert [*out.parent.iterdir()] == [out]


EMPTY = Path("/proc/tty/ldisc")


@pytest.mark.skipif(not EMPTY.is_dir(), reason="needs /proc, which says that root may write")
def test_a_folder_without_one_table_is_imported_by_the_tables_name(own: Path, tmp_path: Path) -> None:
    """SOURCE is the table: there is no --csv."""
    for tables in ("", "a.csv b.csv"):
        for name in tables.split():
            (tmp_path / "takes" / name).touch()
        with pytest.raises(DataError) as raised:
            imported(tmp_path / "takes", tmp_path / "out")
        assert "--csv" not in str(raised.value)
        assert "rrtn data import TABLE OUT" in raised.value.fix


def test_a_place_that_takes_no_files_is_refused(own: Path, tmp_path: Path) -> None:
    """A lock there is waited for without end."""
    with pytest.raises(StoppedError, match=rf"^{EMPTY} \| .* \| make it writable, or choose another OUT"):
        imported(own, EMPTY, places=DataPlaces(audio=tmp_path / "takes", file_column="Datei"))


def test_a_refusal_names_the_lines_of_ones_own_table(own: Path, tmp_path: Path) -> None:
    """And not those of data_info.csv, which is gone by then."""
    lines = own.read_text(encoding="utf-8-sig").splitlines()
    lines[3] = lines[3].replace(",5", ",5 or so")
    own.write_text("\n".join(["sep=;", "", *lines]))
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    with pytest.raises(DataError) as caught:
        imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"]})
    assert caught.value.subject == f"{own}, line 6 (1 in all)"
    with pytest.raises(DataError, match=rf"--targets \| Joy \| expected columns of {re.escape(str(own))}: "):
        imported(own, tmp_path / "out", places=places, settings={"targets": ["Joy"]})


def test_a_column_whose_name_another_one_takes_gets_another_one(own: Path, tmp_path: Path) -> None:
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei")
    own.write_text(own.read_text(encoding="utf-8-sig").replace("Age", "File_ID"))
    made = imported(own, tmp_path / "out", places=places, settings={"scale": ["1:10"]})
    header = (tmp_path / "out/data_info.csv").read_text().splitlines()[0].split(",")
    assert {"File_ID", "File_ID_2"} <= set(header)
    assert "File_ID is called File_ID_2: another column takes its place" in made.notes
    own.write_text(own.read_text().replace("File_ID", "Valence"))
    with pytest.raises(DataError, match=r"line 1 \| column 'Valence' twice"):
        imported(own, tmp_path / "other", places=places)


def test_a_column_for_two_roles_is_refused_by_its_name(own: Path, tmp_path: Path) -> None:
    places = DataPlaces(audio=tmp_path / "takes", file_column="Datei", speaker_column="Datei")
    with pytest.raises(DataError, match=r"column 'Datei' for two of .* \| copy the column in the table"):
        imported(own, tmp_path / "out", places=places)


@pytest.mark.parametrize("shares", [(0.7, 0.15, 0.15), (0.5, 0.5, 0.0), (0.34, 0.33, 0.33)])
def test_speakers_are_whole_and_the_shares_are_kept(shares: tuple[float, float, float]) -> None:
    people = [f"s{i}" for i in range(40) for _ in range(1 + i % 5)]
    splits = splits_of_speakers(people, shares, seed=3)
    assert len({*zip(people, splits, strict=True)}) == 40
    counts = Counter(splits)
    found = [counts[name] / len(people) for name in ("Train", "Val", "Test")]
    np.testing.assert_allclose(found, shares, atol=0.03)
    assert splits_of_speakers(people[::-1], shares, seed=3)[::-1] == splits
    assert splits_of_speakers(people, shares, seed=4) != splits


def test_shares_that_make_no_split_are_refused() -> None:
    assert shares_of_text("0.8,0.2") == (0.8, 0.2, 0.0)
    assert set(splits_of_speakers(["a", "b", "c"], (0.8, 0.1, 0.1), seed=0)) == {"Train", "Val", "Test"}
    for text in ("a,b,c", "1", "0.5,0.2,0.2,0.1"):
        with pytest.raises(ConfigError, match=r"^--split"):
            shares_of_text(text)
    refused = ((0.5, 0.2, 0.2), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1))
    for shares in (*refused, *set(itertools.permutations((math.nan, 0.5, 0.5))), (math.inf, 0.5, 0.5)):
        with pytest.raises(ConfigError, match=r"^--split"):
            splits_of_speakers(["a", "b", "c"], shares, seed=0)
    with pytest.raises(DataError, match=r"--split \| 2 speakers \| expected at least 3"):
        splits_of_speakers(["a", "b", "b"], (0.8, 0.1, 0.1), seed=0)


@pytest.fixture
def avb(tmp_path: Path) -> Path:
    """The A-VB layout as it is unpacked: labels/*_info.csv and audio/wav/, Test hidden as -1."""
    folder = tmp_path / "avb"
    sounds(folder / "audio/wav", [f"{i:05d}.wav" for i in range(9)])
    (folder / "labels").mkdir()
    splits = ["Train"] * 4 + ["Val"] * 3 + ["Test"] * 2

    def table(name: str, columns: list[str], cell: object) -> None:
        lines = [",".join(["File_ID", "Split", *columns])]
        for i, split in enumerate(splits):
            values = ["-1" if split == "Test" else str(cell(i, k)) for k in range(len(columns))]  # type: ignore[operator]
            lines.append(",".join([f"[{i:05d}]", split, *values]))
        (folder / "labels" / name).write_text("\n".join(lines) + "\n")

    table("two_info.csv", ["Valence", "Arousal"], lambda i, k: (i + k) / 20)
    table("type_info.csv", ["Voc_Type"], lambda i, k: "Laugh" if i % 2 else "Cry")
    return folder


def test_the_layout_of_a_vb_is_read_as_it_is_unpacked(avb: Path, tmp_path: Path) -> None:
    imported(avb, tmp_path / "two", settings={"task": "avb-two"})
    data = as_training_reads_it(tmp_path / "two")
    assert data.targets == ("Valence", "Arousal")
    assert [len(split.clips) for split in data.splits.values()] == [4, 3, 2]
    assert np.isnan(data.splits["Test"].ratings).all()
    np.testing.assert_allclose(data.splits["Val"].rated[0], [0.2, 0.25])
    assert data.splits["Val"].clips[0].path == avb / "audio/wav/00004.wav"
    imported(avb, tmp_path / "type", settings={"task": "avb-type"})
    classes = as_training_reads_it(tmp_path / "type").columns.classes
    assert [(target.name, target.classes) for target in classes] == [("Voc_Type", ("Cry", "Laugh"))]


def test_tables_of_a_vb_without_a_task_or_of_two_splits_are_refused(avb: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--task \| not given \| .*avb-high, avb-two"):
        imported(avb, tmp_path / "out")
    path = avb / "labels/type_info.csv"
    path.write_text(path.read_text().replace("[00001],Train", "[00001],Val"))
    with pytest.raises(DataError, match=r"line 3 .*\[00001\]: Split is 'Val' here and 'Train' elsewhere"):
        imported(avb, tmp_path / "out", settings={"task": "avb-two"})


def test_a_rating_of_a_vb_that_differs_between_two_rows_or_tables_is_refused(
    avb: Path, tmp_path: Path
) -> None:
    path = avb / "labels/two_info.csv"
    text = path.read_text()
    path.write_text(f"{text}[00001],Train,0.9,0.8\n")
    with pytest.raises(DataError, match=r"line 11 .*\[00001\]: Valence is '0.9' here and '0.05' elsewhere"):
        imported(avb, tmp_path / "out", settings={"task": "avb-two"})
    path.write_text(text)
    (avb / "labels/high_info.csv").write_text("File_ID,Split,Valence\n[00002],Train,0.77\n")
    with pytest.raises(DataError, match=r"two_info.csv, line 4 .*Valence is '0.1' here and '0.77' elsewhere"):
        imported(avb, tmp_path / "out", settings={"task": "avb-two"})


def test_tables_of_a_vb_may_write_metadata_and_numbers_in_two_ways_and_leave_cells_empty(
    avb: Path, tmp_path: Path
) -> None:
    high = (
        "File_ID,Split,Valence,Country\n[00000],Train,,USA\n[00001],Train,0.050,U.S.\n[00002],Train,0.10,\n"
    )
    (avb / "labels/high_info.csv").write_text(high)
    path = avb / "labels/two_info.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},Country", *(f"{line},USA" for line in lines)]) + "\n")
    imported(avb, tmp_path / "two", settings={"task": "avb-two"})
    data = as_training_reads_it(tmp_path / "two")
    np.testing.assert_allclose(data.splits["Train"].rated[:3, 0], [0.0, 0.05, 0.1])
    assert [data.cells[f"[0000{i}]"]["Country"] for i in range(3)] == ["USA", "U.S.", "USA"]


def test_flags_without_effect_on_the_source_are_refused(avb: Path, own: Path, tmp_path: Path) -> None:
    places, task = DataPlaces(speaker_column="Nope", split_column="Split"), {"task": "avb-two"}
    with pytest.raises(ConfigError, match=r"--split-column, --speaker-column \| .* with the tables of A-VB"):
        imported(avb, tmp_path / "out", places=places, settings=task)
    with pytest.raises(ConfigError, match=r"--table \| has no effect with a table"):
        imported(own, tmp_path / "out", tables=("emotion",))
    (tmp_path / "db").mkdir()
    (tmp_path / "db/db.yaml").touch()
    with pytest.raises(ConfigError, match=r"--audio, --split-column \| .* with a database in audformat"):
        places = DataPlaces(audio=tmp_path, split_column="who")
        imported(tmp_path / "db", tmp_path / "out", places=places)


def test_the_layout_of_exvo_is_that_of_hume_vb(tmp_path: Path) -> None:
    source = tmp_path / "exvo"
    sounds(source / "wav", [f"{i:05d}.wav" for i in range(8)])
    lines = ["File_ID,Country,Country_string,Subject_ID,Age,Split,Awe,Fear"]
    lines += [
        f"[{i:05d}],{i % 2},X,Speaker_{i},{20 + i},{'Train' if i < 5 else 'Val'},0.{i},0.5" for i in range(8)
    ]
    (source / "data_info.csv").write_text("\n".join(lines))
    imported(source, tmp_path / "out")
    data = as_training_reads_it(tmp_path / "out")
    assert data.targets == ("Awe", "Fear")
    assert data.numeric_metadata == ("Country", "Age")
    assert data.splits["Train"].clips[2].speaker == "Speaker_2"


@pytest.mark.filterwarnings("ignore")  # those of audformat about pandas
def test_a_database_in_audformat_brings_its_split_speakers_and_scale(tmp_path: Path) -> None:
    source = audformat_database(tmp_path / "db")
    made = imported(source, tmp_path / "out")
    data = as_training_reads_it(tmp_path / "out")
    assert data.targets == ("arousal",)
    assert [str(scale) for scale in data.columns.scales] == ["1:5"]
    assert [clip.speaker for clip in data.splits["Train"].clips] == list("aabb")
    assert data.splits["Val"].rated[:, 0].tolist() == [1.5, 2.5]
    assert data.splits["Val"].clips[0].path == source / "wav/004.wav"
    assert data.cells["wav/000.wav"]["speaker_age"] == "30"
    assert any("segments" in note for note in made.notes)
    with pytest.raises(DataError, match=r"--table \| none \| expected file-wise tables: "):
        imported(source, tmp_path / "other", tables=("none",))


@pytest.mark.filterwarnings("ignore")  # those of audformat about pandas
def test_of_a_database_in_audformat_with_speakers_and_subjects_the_speakers_are_taken(tmp_path: Path) -> None:
    source = audformat_database(tmp_path / "db", subjects="xyxyxy")
    made = imported(source, tmp_path / "first")
    assert [clip.speaker for clip in made.data.splits["Train"].clips] == list("aabb")
    assert any("subject differs from it and is passed over" in text for text in made.data.warnings)
    with pytest.raises(DataError, match=r"--speaker-column \| nobody \| expected a column of .*subject"):
        imported(source, tmp_path / "out", places=DataPlaces(speaker_column="nobody"))
    made = imported(source, tmp_path / "out", places=DataPlaces(speaker_column="subject"))
    assert [clip.speaker for clip in made.data.splits["Train"].clips] == list("xyxy")


def audformat_database(folder: Path, subjects: str = "") -> Path:
    audformat = pytest.importorskip("audformat", reason="audformat is not installed")
    sounds(folder / "wav", [f"{i:03d}.wav" for i in range(6)])
    database = audformat.Database(name="mini", usage="research")
    database.schemes["arousal"] = audformat.Scheme("float", minimum=1, maximum=5)
    database.schemes["speaker"] = audformat.Scheme(
        "str", labels={name: {"gender": "female", "age": 30} for name in "abc"}
    )
    for name in ("train", "dev"):
        database.splits[name] = audformat.Split(name)
    files = [f"wav/{i:03d}.wav" for i in range(6)]
    for split, part in (("train", files[:4]), ("dev", files[4:])):
        table = database[f"emotion.{split}"] = audformat.Table(audformat.filewise_index(part), split_id=split)
        table["arousal"] = audformat.Column(scheme_id="arousal")
        table["arousal"].set([1.5, 2.5, 3.5, 4.5][: len(part)])
    table = database["files"] = audformat.Table(audformat.filewise_index(files))
    table["speaker"] = audformat.Column(scheme_id="speaker")
    table["speaker"].set(list("aabbcc"))
    if subjects:
        database.schemes["subject"] = audformat.Scheme("str")
        table["subject"] = audformat.Column(scheme_id="subject")
        table["subject"].set(list(subjects))
    segments = database["segments"] = audformat.Table(audformat.segmented_index(files[:1], ["0s"], ["1s"]))
    segments["arousal"] = audformat.Column(scheme_id="arousal")
    segments["arousal"].set([2.0])
    database.save(str(folder))
    return folder


def test_without_the_package_a_database_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db/db.yaml").write_text("name: mini\n")
    monkeypatch.setitem(sys.modules, "audformat", None)
    with pytest.raises(MissingExtraError, match=r'pip install "audformat>=1\.4"'):
        imported(tmp_path / "db", tmp_path / "out")


def test_flags_win_over_the_settings_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text('audio = "/a"\ntask = "avb-two"\n')
    document = with_settings_of_data({"data": {"dir": str(tmp_path), "audio": "/b"}})
    data = config_from_dict(document, source="test").data
    assert (data.audio, data.task) == ("/b", "avb-two")
    assert DataConfig().audio == ""
