"""A cross-validation: a clip is predicted by the run that did not hear its speaker; nothing is done twice."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.cli import app
from rrtn.runtime.errors import ConfigError, DataError, ModelError, StoppedError
from rrtn.train import loop
from rrtn.train.config import Config, config_from_dict
from rrtn.train.display import Part
from rrtn.train.evidence import fold_runs as runs_of
from rrtn.train.evidence.evaluate import evaluate
from rrtn.train.evidence.fold_runs import FoldRuns, fold_runs, folds_in, train_folds
from rrtn.train.evidence.report import report
from rrtn.train.evidence.trained_run import predictions_of_run
from rrtn.train.method import model
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.metrics import ccc_challenge
from rrtn.train.run_folder import RunFolder

SPEAKERS, CLIPS = 4, 3  # of each


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Noise of four speakers in a table without a split; a CNN10 of a few channels learns from it."""
    folder = tmp_path_factory.mktemp("folds")
    (folder / "data/wav").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["file,speaker,Sex,Awe,Fear"]
    for i in range(SPEAKERS * CLIPS):
        soundfile.write(folder / f"data/wav/{i}.wav", rng.uniform(-0.5, 0.5, 4800), 16_000)
        awe, fear = rng.uniform(size=2)
        lines.append(f"{i},s{i % SPEAKERS},{'fm'[i % 2]},{awe:.3f},{fear:.3f}")
    (folder / "data/data_info.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(folder / "cache"))
        patch.setattr(loop, "matmul_peak", lambda device, dtype: 1e12)
        small = lambda name, *, n_mels: PannsCnn(n_mels, channels=(4, 8, 8, 16), pooled_blocks=4)  # noqa: E731
        patch.setattr(model, "encoder_from_name", small)
        yield folder


def settings(folder: Path, **changed: object) -> Config:
    optim = {"epochs": 2, "batch_size": 4, **changed}
    document = {
        "data": {"dir": str(folder / "data")},
        "optim": optim,
        "device": "cpu",
        "model": {"method": "vanilla"},
    }
    return config_from_dict(document, source="test")


@pytest.fixture(scope="module")
def crossed(folder: Path) -> FoldRuns:
    """All four folds, trained."""
    runs = fold_runs(settings(folder), folds="loso", out=folder / "cv")
    train_folds(runs, say=lambda line: None)
    return runs


def test_every_fold_is_a_run(crossed: FoldRuns) -> None:
    assert [fold.state for fold in crossed.folds()] == ["finished"] * SPEAKERS
    assert [run.name for run in folds_in(crossed.out)] == [f"fold{i}" for i in range(1, SPEAKERS + 1)]
    assert folds_in(crossed.out / "fold1") == []


def test_all_folds_share_what_was_decoded_once(folder: Path, crossed: FoldRuns) -> None:
    evaluate(crossed.out, ridge=False)
    assert len(list((folder / "cache/clips").glob("*.npy"))) == 1  # one shard of all twelve files


def test_each_clip_is_predicted_by_the_run_that_did_not_hear_its_speaker(crossed: FoldRuns) -> None:
    """The last epoch's scores of a run on its own Val are those of its history."""
    found = evaluate(crossed.out, ridge=False)
    assert (found.clips, found.speakers, found.folds, found.chosen_on) == (
        SPEAKERS * CLIPS,
        SPEAKERS,
        4,
        False,
    )
    assert found.epochs == (2,)
    for number, run in enumerate(folds_in(crossed.out)):
        inside = np.array([speaker == f"s{number}" for speaker in found.predictions.speakers])
        ccc = ccc_challenge(found.predictions.scores[inside], found.predictions.rated[inside])
        last = json.loads(RunFolder(run).history.read_text().splitlines()[-1])
        np.testing.assert_allclose(ccc, [*last["val_ccc_per_target"].values()], atol=1e-6)


def test_predictions_are_kept_until_a_run_changes(crossed: FoldRuns) -> None:
    first = predictions_of_run(crossed.out)
    (kept,) = (crossed.out / "predictions").glob("Val-*.csv")
    before = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(predictions_of_run(crossed.out).scores, first.scores)
    assert kept.stat().st_mtime_ns == before


def without(crossed: FoldRuns, copy: Path, *lost: str) -> FoldRuns:
    """A copy of which these folds were not trained."""
    shutil.copytree(crossed.out, copy)
    for fold in lost:
        shutil.rmtree(copy / fold)
    return replace(crossed, out=copy)


def test_the_same_command_goes_on_where_it_was_stopped(
    crossed: FoldRuns, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = without(crossed, folder / "again", "fold3", "fold4")
    copy = runs.out
    with pytest.raises(ConfigError, match=r"2 of 4 folds finished"):
        evaluate(copy)
    trained: list[str] = []
    real = runs_of.train

    def stopping(plan: object, run: Path, **options: object) -> object:
        trained.append(run.name)
        if len(trained) == 2:
            raise StoppedError(str(run), "stopped", fix="rrtn train --resume", exit_code=143)
        return real(plan, run, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runs_of, "train", stopping)
    with pytest.raises(StoppedError, match="run the same command again"):
        train_folds(runs, say=lambda line: None)
    train_folds(runs, say=lambda line: None)
    assert trained == ["fold3", "fold4", "fold4"]
    np.testing.assert_array_equal(predictions_of_run(copy).scores, predictions_of_run(crossed.out).scores)


def test_a_finished_fold_whose_checkpoint_is_broken_is_trained_again_once_it_is_removed(
    crossed: FoldRuns, folder: Path
) -> None:
    copy = without(crossed, folder / "broken").out
    shutil.rmtree(copy / "predictions", ignore_errors=True)
    for weights in (copy / "fold2/checkpoints/last").glob("weights-*"):
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        predictions_of_run(copy)
    assert caught.value.fix.startswith(f"remove {copy / 'fold2'}, and run the same rrtn crossval again")


def test_finished_folds_behind_the_one_at_hand_are_no_time_to_come(
    crossed: FoldRuns, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, parts = without(crossed, folder / "first again", "fold1", "fold3"), []

    def stopping(plan: object, run: Path, *, part: Part, **options: object) -> None:
        parts.append(part)
        raise StoppedError(str(run), "stopped")

    monkeypatch.setattr(runs_of, "train", stopping)
    with pytest.raises(StoppedError):
        train_folds(runs, say=lambda line: None)
    assert [part.later for part in parts] == [1.0]


def test_evaluate_takes_the_folds_with_ridge_groups_and_another_cross_validation(crossed: FoldRuns) -> None:
    found = evaluate(crossed.out, by=["Sex"], others=[crossed.out])
    assert found.ridge is not None and np.isfinite(found.ridge).all()
    assert [group.clips for group in found.groups[0].groups] == [6, 6]
    (comparison,) = found.compared.values()
    np.testing.assert_array_equal(comparison.difference, 0)
    assert found.to_dict()["folds"] == 4


def test_folds_of_data_that_were_changed_are_not_evaluated(
    crossed: FoldRuns, folder: Path, tmp_path: Path
) -> None:
    """A clip may now be in the fold of a run that learned from it."""
    copy = shutil.copytree(crossed.out, tmp_path / "folds")
    data = shutil.copytree(folder / "data", tmp_path / "data")
    for config in copy.glob("fold*/config.toml"):
        config.write_text(config.read_text().replace(str(folder / "data"), str(data)))
    assert evaluate(copy, ridge=False).clips == SPEAKERS * CLIPS
    table = data / "data_info.csv"
    header, first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows, first]) + "\n")
    with pytest.raises(DataError, match="changed since fold1 was trained"):
        evaluate(copy, ridge=False)


def test_report_takes_the_folds(crossed: FoldRuns, tmp_path: Path) -> None:
    page = report([crossed.out], out=tmp_path / "page.html").read_text()
    assert "rrtn export" not in page  # it cannot be
    assert "CCC on 4 folds" in page
    assert "predicted by the run that did not hear its speaker" in page
    assert "chosen on these clips" not in page


def test_the_page_of_folds_calls_no_epoch_the_best(crossed: FoldRuns, tmp_path: Path) -> None:
    page = report([crossed.out], out=tmp_path / "page.html").read_text()
    assert "used: epoch 2" in page
    assert "best: epoch" not in page


def test_runs_on_other_clips_are_told_what_compares_them(crossed: FoldRuns) -> None:
    """In words for evaluate and for report, which has neither --compare nor --data."""
    one, other = crossed.out / "fold1", crossed.out / "fold2"
    for ask in (lambda: evaluate(one, others=[other]), lambda: report([one, other])):
        with pytest.raises(DataError) as caught:
            ask()
        assert str(caught.value) == (
            f"{other} | other clips, targets or ratings than {one} | expected runs on the same data | "
            f"judge both on one data set: rrtn evaluate {one} --compare {other} --data DIR"
        )


def test_other_settings_and_other_data_are_refused(crossed: FoldRuns, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"fold1 \| made with other settings: optim\.epochs: 2 -> 3"):
        fold_runs(settings(folder, epochs=3), folds="loso", out=crossed.out)
    with pytest.raises(ConfigError, match=r"--folds \| 5 \| expected at most 4"):
        fold_runs(settings(folder), folds="5", out=folder / "other")
    with pytest.raises(ConfigError, match="leave --data, --split and --submission out"):
        evaluate(crossed.out, split="Train")
    for given in ({"split": "Train"}, {"data": folder / "data"}):
        with pytest.raises(ConfigError, match=r"^\S*cv \| a cross-validation, .* leave --data and"):
            evaluate(crossed.out / "fold1", ridge=False, others=[crossed.out], **given)


def test_what_a_fold_cannot_learn_is_said_before_any_is_trained(folder: Path, tmp_path: Path) -> None:
    """The class G and the ratings above 0 are of one speaker, whom the third fold leaves out."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/wav").symlink_to(folder / "data/wav")
    people = [i % SPEAKERS for i in range(SPEAKERS * CLIPS)]
    rows = [
        f"{i},s{one},{int(one == 2)},{i / 11},{'G' if one == 2 else 'LC'[i // 4 % 2]},Train"
        for i, one in enumerate(people)
    ]
    rows[0] = rows[0].replace("0.0", "")
    table = ["file,speaker,Awe,Fear,Kind,Split", *rows[:-1], rows[-1].replace("Train", "Test")]
    (tmp_path / "data/data_info.csv").write_text("\n".join(table) + "\n")
    config = settings(tmp_path)
    runs = fold_runs(config, folds="loso", out=tmp_path / "cv")
    assert runs.notes == (
        "targets: Awe (2 values), Fear (10 values, 9% blank)",
        "data_info.csv: columns without numbers are ignored: Kind",
        "blank, and left out of losses and metrics, of 11 clips in Train: Fear 1",
        "fold 3/loso: no variation in Train, so nothing to learn: Awe",
    )
    of_classes = replace(config, data=replace(config.data, class_targets=("Kind",)))
    with pytest.raises(DataError, match=r"^fold 3/loso \| no clip with Kind=G trained on: the 3 clips"):
        fold_runs(of_classes, folds="loso", out=tmp_path / "cv")


def test_the_command_takes_tables_of_any_columns_and_scales(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option that an error of it may name."""
    (tmp_path / "wav").symlink_to(folder / "data/wav")
    rows = [f"{i},p{i % SPEAKERS},{1 + i % 9},{'LC'[i % 2]}" for i in range(SPEAKERS * CLIPS)]
    (tmp_path / "data_info.csv").write_text("\n".join(["clip,vp,Valence,Kind", *rows]) + "\n")
    flags = (
        "--folds 2 --file-column clip --speaker-column vp --scale 1:9 --class-target Kind --dry-run --json"
    )
    app(["crossval", "--data", str(tmp_path), *flags.split()], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [(fold["clips"], fold["speakers"]) for fold in found["folds"]] == [(6, 2), (6, 2)]
