"""The table of nine rows: which runs it is made of, how it goes on, and what it says of them."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pointers import rewrite_pointer
from rrtn.cli import app
from rrtn.runtime.errors import ConfigError, DataError, ModelError, StoppedError
from rrtn.runtime.system import failpoints
from rrtn.train import loop
from rrtn.train import plan as plan_module
from rrtn.train.checkpoint import POINTER
from rrtn.train.config import Config, config_from_dict
from rrtn.train.data.corpus import synthesise
from rrtn.train.data.data_set import DataSet, read_data
from rrtn.train.data.device_clips import part_of_training
from rrtn.train.evidence import table2
from rrtn.train.evidence import table2_runs as rows
from rrtn.train.evidence.evaluate import evaluate, runs_of_seeds
from rrtn.train.evidence.predictions import Predictions, read_predictions, write_predictions
from rrtn.train.evidence.report import report
from rrtn.train.evidence.significance import compare, holm
from rrtn.train.evidence.table2 import Table2, gain, paper_of, table_of_runs
from rrtn.train.evidence.table2_runs import ROWS, Table2Row, TableRuns, rows_of, table_runs, train_rows
from rrtn.train.evidence.trained_run import predictions_of_run
from rrtn.train.method import model
from rrtn.train.method.columns import ClassTarget
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.metrics import ccc_challenge
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.plan import plan_from_config

RESNET18 = ROWS[:3]
SEEDS = 2
RESAMPLES = 200


@pytest.fixture(scope="module", autouse=True)
def _small_and_quick(tmp_path_factory: pytest.TempPathFactory) -> Iterable[None]:
    """A CNN10 of a few channels in place of each encoder, one waveform cache, nothing timed, and FLOPs
    that are counted by the views alone.
    """

    def small(name: str, *, n_mels: int) -> PannsCnn:
        return PannsCnn(n_mels, channels=(4, 8, 8, 16), pooled_blocks=4)

    def views(network: TwinsNetwork, **options: object) -> int:
        return 1 if network.projector is None else 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(model, "encoder_from_name", small)
        patch.setattr(loop, "matmul_peak", lambda device, dtype: 1e12)
        for module in (loop, rows):
            patch.setattr(module, "step_flops", views)
        yield


def config(corpus: Path, **sections: Any) -> Config:
    document: dict[str, Any] = {
        "data": {"dir": str(corpus)},
        "optim": {"epochs": 2, "batch_size": 5, "lr": 0.01},
        "frontend": {"frames": 64},
        "device": "cpu",
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    return config_from_dict(document, source="test")


def runs_of(corpus: Path, out: Path, *, seeds: int = SEEDS, **sections: Any) -> TableRuns:
    return table_runs(config(corpus, **sections), out=out, seeds=seeds, rows=RESNET18)


def trained(runs: TableRuns) -> list[str]:
    """-> what was said."""
    said: list[str] = []
    train_rows(runs, say=said.append, at_run=lambda: None)
    return said


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What `whole` has said, once it is made."""
    return []


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> TableRuns:
    """ResNet18's rows with two seeds, which nothing interrupted."""
    runs = runs_of(corpus, tmp_path_factory.mktemp("tables") / "table")
    said += trained(runs)
    table_of_runs(runs, resamples=RESAMPLES).write()
    return runs


@pytest.fixture
def copy(whole: TableRuns, tmp_path: Path) -> TableRuns:
    """The same in a folder of the test's own."""
    shutil.copytree(whole.out, tmp_path / "table")
    return replace(whole, out=tmp_path / "table")


def run_bytes(run: Path) -> dict[str, bytes]:
    """Settings, history, and both checkpoints as they are listed."""
    listed = ["config.toml", "history.jsonl"]
    for kind in ("best", "last"):
        files = json.loads((run / "checkpoints" / kind / POINTER).read_bytes())["files"].values()
        listed += [f"checkpoints/{kind}/{name}" for name in (POINTER, *(entry["file"] for entry in files))]
    return {name: (run / name).read_bytes() for name in listed}


def stem_of(path: Path) -> Path:
    """The name of kept predictions without the hash of their content."""
    return path.with_name(path.stem.rpartition("-")[0])


def kept_predictions(runs: TableRuns, row: Table2Row) -> list[Predictions]:
    folders = [runs.run(row, seed).folder / "predictions" for seed in range(runs.seeds)]
    return [read_predictions(path) for folder in folders for path in folder.iterdir()]


class TestGains:
    def test_the_papers_own_increase_comes_out(self) -> None:
        """Its abstract: "0.678 ... a 4.8 % increase over a vanilla CNN 14 CCC of 0.647"."""
        assert f"{gain(0.678, 0.647):.1f}" == "4.8"
        assert f"{paper_of(ROWS[-1])[2]:.1f}" == "4.8"

    def test_local_is_over_the_row_before_and_global_over_vanilla(self) -> None:
        resnet18 = [paper_of(row) for row in RESNET18]
        assert resnet18[0] == (0.613, None, None)
        assert resnet18[1][1:] == pytest.approx((100 * 0.015 / 0.613, 100 * 0.015 / 0.613))
        assert resnet18[2][1:] == pytest.approx((100 * 0.006 / 0.628, 100 * 0.021 / 0.613))

    def test_the_two_local_gains_multiply_to_the_global_one(self) -> None:
        for first in (1, 4, 7):
            local = [1 + (paper_of(ROWS[i])[1] or 0) / 100 for i in (first, first + 1)]
            assert local[0] * local[1] == pytest.approx(1 + (paper_of(ROWS[first + 1])[2] or 0) / 100)

    def test_nothing_is_relative_to_what_is_not_above_zero(self) -> None:
        assert gain(0.1, 0.0) is None
        assert gain(0.1, -0.1) is None

    def test_next_to_nothing_is_no_base_of_a_gain(self) -> None:
        """-0.1 over 0.0002 would be -50100.0%."""
        assert gain(-0.1, 0.0002) is gain(0.3, 0.0099) is None
        assert gain(0.03, 0.01) == pytest.approx(200)


def test_the_rows_are_the_papers_in_its_order() -> None:
    assert [row[:3] for row in ROWS] == [
        ("resnet18", "vanilla", 0.613),
        ("resnet18", "rrtn", 0.628),
        ("resnet18", "rrtn-ruwl", 0.634),
        ("cnn10", "vanilla", 0.655),
        ("cnn10", "rrtn", 0.667),
        ("cnn10", "rrtn-ruwl", 0.668),
        ("cnn14", "vanilla", 0.647),
        ("cnn14", "rrtn", 0.674),
        ("cnn14", "rrtn-ruwl", 0.678),
    ]


def test_rows_are_chosen_by_encoder_and_method_and_stay_in_order() -> None:
    assert rows_of() == ROWS
    assert [row.name for row in rows_of(["cnn14", "cnn10"], ["rrtn", "vanilla"])] == [
        *("cnn10-vanilla", "cnn10-rrtn", "cnn14-vanilla", "cnn14-rrtn")
    ]
    with pytest.raises(
        ConfigError,
        match=r"^--encoders \| cnn12 \| expected some of resnet18, cnn10, cnn14, separated by commas$",
    ):
        rows_of(["cnn10", "cnn12"])
    with pytest.raises(
        ConfigError,
        match=r"^--methods \| ruwl \| expected some of vanilla, rrtn, rrtn-ruwl, separated by commas$",
    ):
        rows_of(methods=["ruwl"])


class TestRuns:
    def test_a_run_is_what_rrtn_train_makes_with_that_seed(
        self, whole: TableRuns, corpus: Path, tmp_path: Path
    ) -> None:
        settings = config(corpus, seed=1, model={"encoder": "resnet18", "method": "rrtn"})
        loop.train(plan_from_config(settings), tmp_path / "run", resume=False)
        assert run_bytes(tmp_path / "run") == run_bytes(whole.out / "resnet18-rrtn/seed1")

    @pytest.mark.usefixtures("whole")
    def test_seed_by_seed_and_each_with_its_place_in_the_whole(self, said: list[str]) -> None:
        names = [f"{row.name} seed {seed}" for seed in range(SEEDS) for row in RESNET18]
        assert said == [f"{number}/6 {name}: not run" for number, name in enumerate(names, start=1)]

    @pytest.mark.parametrize(
        "place", ["train.step:sigterm:8", pytest.param("train.validate:sigterm:4", marks=pytest.mark.slow)]
    )  # in the second run
    def test_stopped_by_a_signal_the_same_call_goes_on_to_the_same_bits(
        self, corpus: Path, whole: TableRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        runs = runs_of(corpus, tmp_path / "table", seeds=1)
        with monkeypatch.context() as patch:
            patch.setenv("RRTN_FAILPOINT", place)
            patch.setattr(failpoints, "_passed", 0)
            with pytest.raises(
                StoppedError,
                match=r"resnet18-rrtn/seed0 \| stopped .* \| run the same command again: it continues",
            ) as stopped:
                trained(runs)
        assert stopped.value.exit_code == 143
        first = runs.run(ROWS[0], 0).folder / "checkpoints/last" / POINTER
        before = first.stat().st_mtime_ns
        said = trained(runs)
        assert said[0].startswith("2/3 resnet18-rrtn seed 0: begun, ")
        assert first.stat().st_mtime_ns == before
        for row in RESNET18:
            assert run_bytes(runs.run(row, 0).folder) == run_bytes(whole.run(row, 0).folder)

    def test_what_is_finished_is_not_trained_again_and_more_seeds_are_added(
        self, copy: TableRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Path] = []
        monkeypatch.setattr(rows, "train", lambda plan, run, **options: asked.append(run))
        assert trained(copy) == []
        trained(replace(copy, seeds=3))
        assert asked == [copy.out / row.name / "seed2" for row in RESNET18]

    @pytest.mark.parametrize(
        ("sections", "told"),
        [
            ({"optim": {"epochs": 3}}, "optim.epochs: 2 -> 3"),
            ({"optim": {"batch_size": 4}}, "optim.batch_size: 5 -> 4"),
            ({"data": {"fraction": 0.5}}, "data.fraction: 1.0 -> 0.5"),
            ({"precision": "bf16"}, "precision: 'fp32' -> 'bf16'"),
        ],
    )
    def test_other_settings_in_the_same_folder_are_refused_in_one_line(
        self, corpus: Path, whole: TableRuns, sections: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            runs_of(corpus, whole.out, **sections)
        path = whole.out / "resnet18-vanilla/seed0"
        assert (refused.value.subject, refused.value.came) == (str(path), f"made with other settings: {told}")
        assert refused.value.fix == "use the old settings, or choose another --out"

    def test_runs_of_rows_that_are_not_chosen_must_fit_too(self, corpus: Path, whole: TableRuns) -> None:
        with pytest.raises(ConfigError, match=r"resnet18-vanilla/seed0 \| made with other settings"):
            table_runs(config(corpus, optim={"epochs": 3}), out=whole.out, seeds=1, rows=ROWS[3:])

    def test_other_ratings_are_refused_where_runs_are_finished(
        self, copy: TableRuns, corpus: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(corpus, tmp_path / "moved")
        runs_of(tmp_path / "moved", copy.out)
        trained(runs_of(tmp_path / "moved", copy.out))  # the same data elsewhere
        table = tmp_path / "moved/data_info.csv"
        lines = table.read_text().splitlines()
        lines[1] = f"{lines[1].rpartition(',')[0]},0.123"
        table.write_text("\n".join(lines) + "\n")
        with pytest.raises(
            ConfigError,
            match=r"resnet18-vanilla/seed0 \| clips or ratings have changed: sha256 was \w+ and is now \w+",
        ):
            trained(runs_of(tmp_path / "moved", copy.out))

    def test_what_a_killed_write_of_the_table_left_is_removed(self, copy: TableRuns) -> None:
        (copy.out / ".table2.json.12345678.tmp").touch()
        trained(copy)
        assert list(copy.out.glob(".*")) == []

    def test_no_seed_is_refused(self, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^--seeds \| 0 \| expected at least 1$"):
            runs_of(corpus, tmp_path, seeds=0)

    def test_a_second_process_is_refused(self, copy: TableRuns) -> None:
        with (
            rows.locked(copy.out / "table2.lock", does="trains a table"),
            pytest.raises(ConfigError, match="trains a table there"),
        ):
            trained(copy)


class TestEstimates:
    def test_unknown_before_anything_was_measured(self, corpus: Path, tmp_path: Path) -> None:
        described = runs_of(corpus, tmp_path / "table").describe()
        assert described["seconds_to_go"] is None
        assert (described["epochs"], described["epochs_to_go"]) == (12, 12)
        assert not (tmp_path / "table").exists()

    def test_as_measured_and_rows_that_were_not_by_their_arithmetic(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "measured.json").write_text('{"resnet18-vanilla": {"epochs": 4, "seconds": 40.0}}')
        runs = runs_of(corpus, tmp_path)
        assert rows.seconds_to_go(runs) == pytest.approx(SEEDS * 2 * (10 + 20 + 20))

    def test_what_was_trained_is_measured_and_nothing_is_left(self, whole: TableRuns) -> None:
        measured = json.loads((whole.out / "measured.json").read_text())
        assert {name: entry["epochs"] for name, entry in measured.items()} == {
            row.name: 2 * SEEDS for row in RESNET18
        }
        assert all(entry["seconds"] > 0 for entry in measured.values())
        assert whole.describe()["seconds_to_go"] == 0
        assert {run["state"] for run in whole.describe()["runs"]} == {"finished"}


@pytest.fixture(scope="module")
def table(whole: TableRuns) -> Table2:
    return table_of_runs(whole, resamples=RESAMPLES)


class TestTable:
    def test_of_a_run_whose_checkpoint_is_broken_the_fix_is_to_train_it_again(self, copy: TableRuns) -> None:
        run = copy.run(ROWS[0], 0).folder
        shutil.rmtree(run / "predictions")
        (weights,) = (run / "checkpoints/best").glob("weights-*")
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(ModelError) as caught:
            table_of_runs(copy, resamples=RESAMPLES)
        assert caught.value.fix.startswith(f"remove {run}, and run the same rrtn table2 again")

    def test_each_row_is_the_mean_of_its_runs(self, table: Table2, whole: TableRuns) -> None:
        for result in table.rows[:3]:
            ccc = [ccc_challenge(p.scores, p.rated).mean() for p in kept_predictions(whole, result.row)]
            assert len(ccc) == SEEDS
            assert result.ccc == pytest.approx(ccc)
            assert (result.mean, result.sd) == pytest.approx((sum(ccc) / 2, abs(ccc[0] - ccc[1]) / 2**0.5))
            best = [
                max(line["val_ccc"] for line in histories(whole, result.row, seed)) for seed in range(SEEDS)
            ]
            assert result.ccc == pytest.approx(best, abs=1e-6)
            assert result.interval is None  # of three speakers

    def test_gains_and_significance(self, table: Table2, whole: TableRuns) -> None:
        vanilla, rrtn, ruwl = ([p.scores for p in kept_predictions(whole, row)] for row in RESNET18)
        one = kept_predictions(whole, ROWS[0])[0]
        means = [result.mean for result in table.rows[:3]]
        assert table.rows[0].local_gain is table.rows[0].global_gain is table.rows[0].over_vanilla is None
        assert table.rows[1].local_gain == table.rows[1].global_gain == gain(means[1], means[0])
        assert (table.rows[2].local_gain, table.rows[2].global_gain) == (
            gain(means[2], means[1]),
            gain(means[2], means[0]),
        )
        expected = [compare(a, vanilla, one.rated, one.speakers, resamples=RESAMPLES) for a in (rrtn, ruwl)]
        adjusted = holm(np.array([comparison.p[-1] for comparison in expected]))
        for result, comparison, p in zip(table.rows[1:3], expected, adjusted, strict=True):
            assert result.over_vanilla
            for name in ("difference", "low", "high", "p"):
                np.testing.assert_array_equal(getattr(result.over_vanilla, name), getattr(comparison, name))
            assert result.over_vanilla.p_holm[-1] == p
            assert result.over_vanilla.verdict(-1) == "too few speakers to say"

    def test_p_is_adjusted_over_the_rows(self, copy: TableRuns) -> None:
        """RRTN without RUWL is made perfect: of three speakers' eight swaps two are as far from
        each other.
        """
        for path in (copy.out / "resnet18-rrtn").glob("*/predictions/*.csv"):
            kept = read_predictions(path)
            write_predictions(stem_of(path), replace(kept, scores=kept.rated))
        rrtn, ruwl = (result.over_vanilla for result in table_of_runs(copy, resamples=RESAMPLES).rows[1:3])
        assert rrtn and ruwl
        assert 0.15 < rrtn.p[-1] < 0.35 < ruwl.p[-1]
        assert (rrtn.p_holm[-1], ruwl.p_holm[-1]) == (2 * rrtn.p[-1], max(2 * rrtn.p[-1], ruwl.p[-1]))

    def test_a_gain_that_is_alone_says_which_one_it_is(self, table: Table2) -> None:
        both = replace(table.rows[2], local_gain=1.25, global_gain=3.4)
        assert both.cells()[5] == "+1.2, +3.4"
        assert replace(both, local_gain=None).cells()[5] == "-, +3.4"
        assert replace(both, global_gain=None).cells()[5] == "+1.2, -"
        assert replace(both, local_gain=None, global_gain=None).cells()[5] == ""

    def test_rows_that_were_not_run_are_there_and_say_so(self, table: Table2) -> None:
        assert [result.row for result in table.rows] == list(ROWS)
        assert [result.state for result in table.rows] == ["2 of 2 seeds"] * 3 + ["not run"] * 6
        assert not table.is_whole
        assert table.title.startswith("PARTIAL, 3 of 9 rows are whole: ")
        assert [result.cells()[3] for result in table.rows[3:]] == [""] * 6
        assert table.to_dict()["rows"][8]["ccc"] is None

    def test_with_fewer_runs_than_seeds_it_is_partial_and_compares_the_seeds_that_both_have(
        self, copy: TableRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(copy.out / "resnet18-vanilla/seed0")
        monkeypatch.setenv("RRTN_FAILPOINT", "train.validate:sigterm:2")
        monkeypatch.setattr(failpoints, "_passed", 0)
        with pytest.raises(StoppedError):
            trained(copy)
        table = table_of_runs(copy, resamples=RESAMPLES)
        assert [result.state for result in table.rows[:3]] == [
            "1 of 2 seeds, 1 begun",
            "2 of 2 seeds",
            "2 of 2 seeds",
        ]
        assert table.title.startswith("PARTIAL, 2 of 9 rows are whole: ")
        rrtn = table.rows[1]
        assert len(rrtn.ccc) == 2
        assert rrtn.compared_seeds == 1
        assert rrtn.global_gain == gain(rrtn.ccc[1], table.rows[0].ccc[0])
        assert rrtn.over_vanilla and rrtn.over_vanilla.difference[-1] == pytest.approx(
            rrtn.ccc[1] - table.rows[0].ccc[0]
        )
        assert "(1 of 2 seeds)" in table.to_markdown()

    def test_only_all_runs_make_it_whole(self, table: Table2) -> None:
        done = tuple(replace(result, runs=table.rows[0].runs) for result in table.rows)
        assert replace(table, rows=done).is_whole
        assert not replace(table, rows=done).title.startswith("PARTIAL")

    def test_an_empty_folder_is_a_table_without_runs(self, corpus: Path, tmp_path: Path) -> None:
        table = table_of_runs(runs_of(corpus, tmp_path))
        assert {result.state for result in table.rows} == {"not run"}

    def test_both_files_are_written(self, whole: TableRuns, table: Table2) -> None:
        document = json.loads((whole.out / "table2.json").read_text())
        assert document == json.loads(json.dumps(table.to_dict()))
        assert document["whole"] is False
        lines = (whole.out / "table2.md").read_text().splitlines()
        assert len([line for line in lines if line.startswith("| ")]) == 2 + 9
        assert list(whole.out.rglob("*.tmp")) == []

    def test_n20_predictions_that_lack_a_clip_are_made_again(self, copy: TableRuns, table: Table2) -> None:
        path = next((copy.out / "resnet18-rrtn/seed0/predictions").iterdir())
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        assert [row.ccc for row in table_of_runs(copy).rows] == [row.ccc for row in table.rows]

    def test_runs_on_other_clips_are_refused(self, copy: TableRuns) -> None:
        path = next((copy.out / "resnet18-rrtn/seed0/predictions").iterdir())
        kept = read_predictions(path)
        write_predictions(stem_of(path), replace(kept, rated=kept.rated / 2))
        with pytest.raises(DataError, match="its runs are on different clips, targets or ratings"):
            table_of_runs(copy)


class TestClasses:
    """CCC is of ratings: the columns of a class target are shares of its classes."""

    def test_the_columns_of_classes_are_left_out(
        self, copy: TableRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def with_classes(folder: Path, **options: Any) -> Predictions:
            found = predictions_of_run(folder, **options)
            country = ClassTarget(name="Country", classes=("0", "1"))
            shares = np.random.default_rng(0).uniform(size=(len(found.file_ids), 2))
            return replace(
                found,
                targets=(*found.targets, *country.labels),
                scores=np.hstack([found.scores, shares]),
                rated=np.hstack([found.rated, shares.round()]),
                classes=(country,),
            )

        expected = table_of_runs(copy, resamples=RESAMPLES).to_dict()
        monkeypatch.setattr(table2, "predictions_of_run", with_classes)
        assert table_of_runs(copy, resamples=RESAMPLES).to_dict() == expected

    def test_a_finished_run_is_read_once(self, copy: TableRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        """The table is written anew after each run."""
        asked: list[Path] = []

        def counted(folder: Path, **options: Any) -> Predictions:
            asked.append(folder)
            return predictions_of_run(folder, **options)

        monkeypatch.setattr(table2, "predictions_of_run", counted)
        read: dict[Path, Predictions] = {}
        tables = [table_of_runs(copy, resamples=RESAMPLES, read=read).to_dict() for _ in range(2)]
        assert tables[0] == tables[1]
        assert len(asked) == len(set(asked)) == len(RESNET18) * SEEDS

    def test_data_of_classes_alone_are_refused(self, tmp_path: Path) -> None:
        data = synthesise(tmp_path / "data", clips=26, speakers=9, seed=3, workers=1, task="avb-type")
        with pytest.raises(ConfigError, match=r"rrtn table2 \| classes alone \| expected rated targets"):
            runs_of(data, tmp_path / "table", data={"task": "avb-type"})


class TestSeedsAsARun:
    """`rrtn evaluate` takes a row's folder where a run is."""

    def test_metrics_are_means_and_comparisons_are_nested(self, whole: TableRuns) -> None:
        rrtn, vanilla = (kept_predictions(whole, row) for row in (ROWS[1], ROWS[0]))
        others = [whole.out / "resnet18-vanilla"]
        found = evaluate(whole.out / "resnet18-rrtn", ridge=False, others=others)
        of_seeds = [ccc_challenge(p.scores, p.rated) for p in rrtn]
        np.testing.assert_allclose(found.challenge, (of_seeds[0] + of_seeds[1]) / 2)
        assert found.to_dict()["epochs_of_seeds"] == list(found.epochs)
        assert len(found.epochs) == SEEDS
        expected = compare(
            [p.scores for p in rrtn], [p.scores for p in vanilla], rrtn[0].rated, rrtn[0].speakers
        )
        np.testing.assert_array_equal(found.compared[str(others[0])].p, expected.p)
        np.testing.assert_array_equal(found.compared[str(others[0])].low, expected.low)

    def test_the_report_shows_each_seed_and_their_mean(self, copy: TableRuns, tmp_path: Path) -> None:
        row, other = copy.out / "resnet18-rrtn", copy.out / "resnet18-vanilla"
        page = report([row, other]).read_text()
        assert report([row / "seed0"], out=tmp_path / "one.html") == tmp_path / "one.html"
        assert f"<b>{evaluate(row, ridge=False).challenge.mean():.3f}</b>" in page
        assert "2 seeds, means over them" in page
        assert "2 seeds" not in (tmp_path / "one.html").read_text()
        named = {f"resnet18-{method}/seed{seed}" for method in ("rrtn", "vanilla") for seed in range(SEEDS)}
        assert named == set(re.findall(r">(resnet18-\w+/seed\d)<", page))
        assert f"minus {other}, 3 speakers" in page

    def test_one_run_is_as_it_was(self, whole: TableRuns) -> None:
        run = whole.out / "resnet18-rrtn/seed1"
        assert runs_of_seeds(run) == [run]
        found = evaluate(run, ridge=False)
        one = kept_predictions(whole, ROWS[1])[1]
        np.testing.assert_array_equal(found.challenge, ccc_challenge(one.scores, one.rated))
        assert "epochs_of_seeds" not in found.to_dict()

    def test_unlike_runs_unfinished_ones_and_another_number_are_refused(
        self, copy: TableRuns, tmp_path: Path
    ) -> None:
        with pytest.raises(
            ConfigError, match=r"resnet18-vanilla \| 2 seeds \| expected 1, as many as .*seed0 has"
        ):
            evaluate(copy.out / "resnet18-rrtn/seed0", ridge=False, others=[copy.out / "resnet18-vanilla"])
        with pytest.raises(ConfigError, match=r"--submission \| .*resnet18-rrtn holds 2 runs"):
            evaluate(copy.out / "resnet18-rrtn", submission=tmp_path / "test.csv")
        row = copy.out / "resnet18-rrtn"
        settings = row / "seed1/config.toml"
        text = settings.read_text()
        settings.write_text(
            text.replace("tensorboard = false", "tensorboard = true").replace('dir = "', 'dir = "/moved')
        )
        assert settings.read_text().count("/moved") == 1
        assert len(runs_of_seeds(row)) == 2  # what changes no result may differ
        pointer = row / "seed1/checkpoints/last" / POINTER
        before = pointer.read_bytes()
        digest = json.loads(before)["data_sha256"]
        rewrite_pointer(pointer, lambda text: text.replace(digest, "0" * 64))
        with pytest.raises(ConfigError, match=r"seed1 \| unlike seed0: data.dir: "):
            runs_of_seeds(row)
        pointer.write_bytes(before)
        shutil.copytree(copy.out / "resnet18-vanilla/seed0", row / "seed2")
        with pytest.raises(
            ConfigError,
            match=r"seed2 \| unlike seed0: model.method: 'rrtn' -> 'vanilla' \| expected runs that "
            r"differ in nothing but their seed",
        ):
            evaluate(row)
        shutil.rmtree(row / "seed2")
        for run in row.iterdir():
            settings = run / "config.toml"
            settings.write_text(settings.read_text().replace("epochs = 2", "epochs = 3"))
        with pytest.raises(ConfigError, match=r"seed0 \| 2 of 3 epochs \| expected finished runs"):
            evaluate(row)


def histories(runs: TableRuns, row: Table2Row, seed: int) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (runs.run(row, seed).folder / "history.jsonl").read_text().splitlines()
    ]


class TestFraction:
    def test_whole_speakers_until_there_are_enough_clips(self, corpus: Path) -> None:
        data = read_data(corpus)
        train = data.splits["Train"]
        for fraction in (0.2, 0.5, 0.9):
            part = part_of_training(data, fraction, seed=4)
            kept = part.splits["Train"]
            speakers = {clip.speaker for clip in kept.clips}
            assert kept.clips == tuple(clip for clip in train.clips if clip.speaker in speakers)
            np.testing.assert_array_equal(
                kept.ratings, train.ratings[[clip.speaker in speakers for clip in train.clips]]
            )
            largest = max(sum(clip.speaker == name for clip in kept.clips) for name in speakers)
            assert fraction * len(train.clips) <= len(kept.clips) < fraction * len(train.clips) + largest
            assert part.splits["Val"] is data.splits["Val"]

    def test_a_clip_without_a_speaker_is_nobody_else(self, corpus: Path) -> None:
        data = read_data(corpus)
        train = data.splits["Train"]
        first = train.clips[0]
        named = [i for i, clip in enumerate(train.clips) if clip.speaker == first.speaker]
        clips = list(train.clips)
        clips[0] = first._replace(speaker="", file_id=first.speaker)
        whole = replace(data, splits=data.splits | {"Train": replace(train, clips=tuple(clips))})
        together = []
        for seed in range(30):
            kept = set(part_of_training(whole, 0.3, seed=seed).splits["Train"].clips)
            together.append((clips[0] in kept) == (clips[named[1]] in kept))
        assert not all(together)

    def test_all_of_it_is_the_split_as_it_was(self, corpus: Path) -> None:
        data = read_data(corpus)
        part = part_of_training(data, 1.0, seed=4).splits["Train"]
        assert part.clips == data.splits["Train"].clips
        np.testing.assert_array_equal(part.ratings, data.splits["Train"].ratings)

    def test_more_has_all_that_less_has_and_seeds_differ(self, corpus: Path) -> None:
        data = read_data(corpus)

        def chosen(fraction: float, seed: int) -> set[str]:
            return {
                clip.speaker for clip in part_of_training(data, fraction, seed=seed).splits["Train"].clips
            }

        assert chosen(0.3, 4) < chosen(0.7, 4)
        assert len({frozenset(chosen(0.3, seed)) for seed in range(8)}) > 2

    def test_runs_train_on_it_and_evaluation_does_not_change(self, corpus: Path, tmp_path: Path) -> None:
        plan = plan_from_config(config(corpus, data={"fraction": 0.4}, seed=3))
        assert plan.steps_per_epoch == len(plan.data.splits["Train"].clips) // 5
        assert len(plan.data.splits["Train"].clips) < 15
        assert len(plan.data.splits["Val"].clips) == 9

    def test_a_seed_that_cannot_be_trained_is_refused_before_the_first_run(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = plan_module.part_of_training

        def one_clip_of_seed_2(data: DataSet, fraction: float, *, seed: int) -> DataSet:
            return real(data, 1e-9 if seed == 2 else fraction, seed=seed)

        monkeypatch.setattr(plan_module, "part_of_training", one_clip_of_seed_2)
        few = len(one_clip_of_seed_2(read_data(corpus), 0.4, seed=2).splits["Train"].clips)
        fraction = {"fraction": 0.4}
        assert runs_of(corpus, tmp_path / "two", data=fraction, optim={"batch_size": few + 1}).seeds == 2
        with pytest.raises(ConfigError, match=rf"--batch-size \| {few + 1} \| expected at most {few}"):
            runs_of(corpus, tmp_path / "three", seeds=3, data=fraction, optim={"batch_size": few + 1})

    @pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, float("nan")])
    def test_shares_that_are_none_are_refused(self, corpus: Path, fraction: float) -> None:
        with pytest.raises(
            ConfigError, match=r"--fraction \(data.fraction\) \| .* \| expected more than 0, at most 1"
        ):
            config(corpus, data={"fraction": fraction})


def test_the_command_takes_tables_of_any_columns(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option that an error of it may name."""
    table = (corpus / "data_info.csv").read_text()
    for name, other in (("File_ID", "clip"), ("Split", "part"), ("Subject_ID", "vp")):
        table = table.replace(name, other, 1)
    (tmp_path / "ratings.csv").write_text(table)
    places = ["--csv", str(tmp_path / "ratings.csv"), "--audio", str(corpus / "wav")]
    columns = "--file-column clip --split-column part --speaker-column vp --channel 1".split()
    shown = ["--encoders", "cnn10", "--seeds", "1", "--dry-run", "--json", "--out", str(tmp_path / "runs")]
    app(["table2", *places, *columns, *shown], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in found["runs"]] == ["not run"] * 3
    data = found["config"]["data"]
    assert (data["speaker_column"], data["channel"]) == ("vp", 1)
