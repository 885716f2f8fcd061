"""The whole way of labels that are not complete ratings in 0 to 1: train, export, score, evaluate, report."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rrtn.export.triton import triton_repository_from_bundle
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.challenge import EMOTIONS
from rrtn.train.data.corpus import synthesise
from rrtn_processes import Ended, Server

SETTINGS = "[projector]\nunits = 16\n[frontend]\nframes = 64\n[optim]\nepochs = 2\nbatch_size = 8\n"
Row = dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 clips of 9 speakers, under tables that differ in their labels."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "small.toml").write_text(SETTINGS)
    corpus = synthesise(folder / "plain", clips=26, speakers=9, seed=5, split=(0.4, 0.4, 0.2), workers=1)
    rows = table(corpus / "data_info.csv")
    write(folder / "five", map(on_five_steps, rows))
    write(folder / "mixed", (mixed(i, row) for i, row in enumerate(rows)))
    return folder


def table(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path, rows: Iterable[Row]) -> None:
    folder.mkdir()
    (folder / "wav").symlink_to(folder.parent / "plain/wav")
    rows = list(rows)
    with (folder / "data_info.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def on_five_steps(row: Row) -> Row:
    """The ratings mapped to 1..5, written in full."""
    return {
        name: repr(1 + 4 * float(text)) if name in EMOTIONS and text else text for name, text in row.items()
    }


def mixed(i: int, row: Row) -> Row:
    """Two targets of two scales, each rated for two thirds of the clips, and two columns of classes."""
    valence = f"{2 * float(row['Awe']) - 1:.3f}" if row["Awe"] and i % 3 else ""
    arousal = f"{1 + 8 * float(row['Fear']):.2f}" if row["Fear"] and i % 3 < 2 else "NA"
    ours = {name: row[name] for name in ("File_ID", "Split", "Subject_ID")}
    kind = ("Cry", "Laugh", "Gasp")[i % 3]
    hidden = row["Split"] == "Test"
    return ours | {
        "Valence": "-1" if hidden else valence,
        "Arousal": arousal,
        "Type": "-1" if hidden else kind,
        "Sex": "" if hidden or i == 1 else "mf"[i % 2],
    }


@pytest.fixture(scope="module")
def rrtn(server: Server, folder: Path) -> Callable[..., Ended]:
    def run(*arguments: object) -> Ended:
        ended = server.start(*arguments, cwd=folder, RRTN_CACHE=folder / "cache").wait()
        assert ended.code == 0, ended.err
        return ended

    return run


@pytest.fixture(scope="module")
def runs(folder: Path, rrtn: Callable[..., Ended]) -> Path:
    """A run and a bundle on each table."""
    for name, flags in (
        ("plain", ()),
        ("five", ("--scale", "1:5")),
        ("mixed", ("--scale", "Valence=-1:1,Arousal=1:9", "--class-target", "Type,Sex")),
    ):
        rrtn(
            "train",
            "--data",
            name,
            *flags,
            "--config",
            "small.toml",
            "--device",
            "cpu",
            "--out",
            f"run-{name}",
        )
        more = {
            "plain": ["--no-waveform"],
            "five": ["--int8", "--fp16"],
            "mixed": ["--int8", "--no-waveform"],
        }
        rrtn("export", f"run-{name}", "--no-cpu-variant", *more[name])
    return folder


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("checkpoints/*/*.safetensors")}


def scores(bundle: Path, variant: str, clips: list[Path]) -> np.ndarray:
    with Scorer(bundle, "cpu", variant=variant, workers=1) as scorer:
        return np.array([list(row.scores.values()) for row in scorer.score_files(clips)])


def test_ratings_on_another_scale_train_to_the_same_weights_bit_for_bit(runs: Path) -> None:
    assert weights(runs / "run-five") == weights(runs / "run-plain") != {}
    assert history(runs / "run-five") == history(runs / "run-plain")


def test_and_are_judged_alike_in_their_own_units(runs: Path, rrtn: Callable[..., Ended]) -> None:
    plain, five = (json.loads(rrtn("evaluate", f"run-{name}", "--json").out) for name in ("plain", "five"))
    for target in EMOTIONS:
        ours, theirs = five["per_target"][target], plain["per_target"][target]
        for name in ("ccc", "ccc_biased", "pearson", "ridge_ccc"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6)
        assert ours["mae"] == pytest.approx(4 * theirs["mae"], rel=1e-5)
    assert five["scales"]["Awe"] == [1, 5]
    assert "scales" not in plain


def test_every_variant_gives_the_units_of_the_scale(runs: Path) -> None:
    clips, bundle = sorted((runs / "plain/wav").glob("*.wav"))[:4], load_bundle(runs / "run-five/export")
    plain = scores(runs / "run-plain/export", "fp32", clips)
    limits = {"fp32": 1e-4, "fp16": 2e-3, "int8": 5e-3}
    assert len(bundle.variants) == 6
    for variant in bundle.variants:
        five = scores(bundle.path, variant.name, clips)
        np.testing.assert_allclose(five, 1 + 4 * plain, rtol=0, atol=4 * limits[variant.precision])


def test_every_variant_passes_the_gate_in_units_of_the_scale(runs: Path) -> None:
    plain, five = (load_bundle(runs / f"run-{name}/export").variants for name in ("plain", "five"))
    assert plain[0].parity
    for variant in five:
        assert variant.parity
        assert variant.parity["limit"] == {"fp32": 4e-4, "fp16": 8e-3, "int8": None}[variant.precision]
        assert variant.parity["ccc_reference"] == pytest.approx(plain[0].parity["ccc_reference"], abs=1e-6)


def test_a_bundle_has_a_newer_number_only_where_its_scores_mean_something_else(runs: Path) -> None:
    documents = {
        name: json.loads((runs / f"run-{name}/export/bundle.json").read_text())
        for name in ("plain", "five", "mixed")
    }
    assert {name: document["schema"] for name, document in documents.items()} == {
        "plain": 1,
        "five": 2,
        "mixed": 2,
    }
    assert "meaning" not in documents["plain"]
    assert documents["five"]["meaning"]["scales"]["Awe"] == [1, 5]
    assert documents["mixed"]["meaning"] == {
        "scales": {"Valence": [-1, 1], "Arousal": [1, 9]},
        "classes": {"Type": ["Cry", "Gasp", "Laugh"], "Sex": ["f", "m"]},
        "submitted": ["Valence", "Arousal", "Type", "Sex"],
    }
    for name, schema in (("plain", 2), ("five", 3), ("mixed", 3)):
        pointer = json.loads((runs / f"run-{name}/checkpoints/best/checkpoint.json").read_text())
        assert pointer["schema"] == schema


def test_a_bare_model_and_tritons_configuration_say_the_scale(runs: Path, tmp_path: Path) -> None:
    bundle = load_bundle(runs / "run-five/export")
    assert load_bundle(runs / "run-five/export/model.fp16.onnx").meaning == bundle.meaning
    triton_repository_from_bundle(bundle, tmp_path / "triton")
    config = (tmp_path / "triton/rrtn_waveform/config.pbtxt").read_text()
    assert r"\"Awe\": [1.0, 5.0]" in config
    labels = (tmp_path / "triton/rrtn_waveform/labels.txt").read_text().splitlines()
    assert labels == list(bundle.labels)


def test_audonnx_gives_the_units_of_the_scale(runs: Path) -> None:
    audonnx = pytest.importorskip("audonnx", reason="audonnx is not installed")
    soundfile = pytest.importorskip("soundfile")
    clip = sorted((runs / "plain/wav").glob("*.wav"))[0]
    came = audonnx.load(str(runs / "run-five/export"))(*soundfile.read(clip, dtype="float32"))
    np.testing.assert_allclose(
        came[0], scores(runs / "run-five/export", "fp32", [clip])[0], rtol=0, atol=1e-4
    )
    assert (came > 1).all() and (came < 5).all()


def test_blanks_and_classes_go_the_whole_way(runs: Path, rrtn: Callable[..., Ended]) -> None:
    record = history(runs / "run-mixed")[-1]
    assert set(record["val_ccc_per_target"]) == {"Valence", "Arousal"}
    assert set(record["val_uar_per_target"]) == {"Type", "Sex"}
    assert len(record["weights"]) == 4
    document = json.loads(rrtn("evaluate", "run-mixed", "--submission", "mixed.csv", "--json").out)
    assert document["rated"]["Valence"] < document["clips"]
    confusion = np.array(document["classes"]["Type"]["confusion"])
    assert confusion.sum() == document["clips"]
    recalls = np.diag(confusion) / confusion.sum(1)
    assert document["classes"]["Type"]["uar"] == pytest.approx(recalls.mean())
    best = max(history(runs / "run-mixed"), key=lambda one: one["val_score"])
    assert document["score"] == pytest.approx(best["val_score"], abs=1e-5)
    submitted = table(runs / "mixed.csv")
    assert [*submitted[0]] == ["File_ID", "Valence", "Arousal", "Type", "Sex"]
    assert {row["Type"] for row in submitted} <= {"Cry", "Gasp", "Laugh"}
    rrtn("report", "run-mixed")
    page = (runs / "run-mixed/report.html").read_text()
    assert "Type: UAR" in page
    assert "Cross-entropy" in page or "cross-entropy" in page


def test_a_table_has_a_column_for_each_class_and_a_submission_the_likeliest(
    runs: Path, rrtn: Callable[..., Ended]
) -> None:
    rrtn("score", "plain/wav", "-m", "run-mixed/export", "--out", "scores.csv", "--submission", "sub.csv")
    rows = table(runs / "scores.csv")
    classes = [f"Type={name}" for name in ("Cry", "Gasp", "Laugh")]
    submitted = {row["File_ID"]: row for row in table(runs / "sub.csv")}
    assert len(rows) == len(submitted) > 0
    for row in rows:
        assert sum(float(row[name]) for name in classes) == pytest.approx(1, abs=1e-5)
        assert -1 <= float(row["Valence"]) <= 1 <= float(row["Arousal"]) <= 9
        ours = submitted[f"[{Path(row['file']).stem}]"]
        assert f"Type={ours['Type']}" == max(classes, key=lambda name: float(row[name]))
        assert float(ours["Arousal"]) == pytest.approx(float(row["Arousal"]), abs=1e-5)
