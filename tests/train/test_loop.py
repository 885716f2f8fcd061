"""The training loop on a tiny corpus: what the twins see, which epoch is best, and that runs repeat
bit for bit.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rrtn.runtime.arrays import Int64
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.runtime.system import failpoints
from rrtn.train import loop, predict, run_state
from rrtn.train.checkpoint import POINTER, PREVIOUS, load_checkpoint, read_info
from rrtn.train.config import Config, config_from_dict
from rrtn.train.data.device_clips import SplitClips
from rrtn.train.device import device_from_config
from rrtn.train.distributed import World
from rrtn.train.loop import TrainResult
from rrtn.train.method import metrics, model, weighting
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.views import epoch_order
from rrtn.train.plan import TrainingPlan, plan_from_config
from safetensors.torch import load_file

# Clips of 64 frames and a narrow projector are quick; the clips are shorter than the recordings, so
# that crops matter. 15 Train clips: 3 steps an epoch.
SETTINGS: dict[str, Any] = {
    "model": {"encoder": "cnn10", "method": "rrtn-ruwl"},
    "optim": {"epochs": 2, "batch_size": 5, "lr": 0.01},
    "frontend": {"frames": 64},
    "projector": {"units": 32},
}
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def _small_and_quick(tmp_path_factory: pytest.TempPathFactory) -> Iterable[None]:
    """A CNN10 of a few channels, which has dropout, so that the generator's state matters; one
    waveform cache; no timing of matrix products and no counting of FLOPs at each start.
    """

    def small(name: str, *, n_mels: int) -> PannsCnn:
        return PannsCnn(n_mels, channels=(4, 8, 8, 16), pooled_blocks=4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(model, "encoder_from_name", small)
        patch.setattr(loop, "matmul_peak", lambda device, dtype: 1e12)
        patch.setattr(loop, "step_flops", lambda network, **options: 1)
        yield


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, dict[str, bytes]]:
    """A run that nothing interrupts."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = loop.train(plan_from_config(config(corpus)), run, resume=False)
    return result, valid_bytes(run)


def config(corpus: Path, **sections: Any) -> Config:
    document: dict[str, Any] = {**SETTINGS, "data": {"dir": str(corpus)}}
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    if document["model"]["method"] == "vanilla":
        del document["projector"]
    return config_from_dict(document, source="test")


def run_bytes(run: Path) -> dict[str, bytes]:
    """All that a run leaves, by its path; but the lock, which names the process."""
    files = {
        str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()
    }
    return {name: content for name, content in files.items() if name != "run.lock"}


def valid_bytes(run: Path) -> dict[str, bytes]:
    """The same without the checkpoint before the last, which is where the run was stopped if it was."""
    listed = {"config.toml", "history.jsonl"}
    for kind in ("best", "last"):
        folder = Path("checkpoints") / kind
        files = json.loads((run / folder / POINTER).read_bytes())["files"].values()
        listed |= {str(folder / name) for name in (POINTER, *(entry["file"] for entry in files))}
    return {name: content for name, content in run_bytes(run).items() if name in listed}


def fail_at(patch: pytest.MonkeyPatch, place: str) -> None:
    patch.setenv("RRTN_FAILPOINT", place)
    patch.setattr(failpoints, "_passed", 0)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


class TestRepeats:
    def test_equal_settings_give_equal_bytes_and_another_seed_does_not(
        self, corpus: Path, whole: tuple[TrainResult, dict[str, bytes]], tmp_path: Path
    ) -> None:
        loop.train(plan_from_config(config(corpus)), tmp_path / "a", resume=False)
        assert valid_bytes(tmp_path / "a") == whole[1]
        for name in ("b", "c"):
            loop.train(plan_from_config(config(corpus, optim={"epochs": 1})), tmp_path / name, resume=False)
        assert run_bytes(tmp_path / "b") == run_bytes(tmp_path / "c")
        loop.train(
            plan_from_config(config(corpus, optim={"epochs": 1}, seed=1)), tmp_path / "d", resume=False
        )
        assert history(tmp_path / "b")[0]["l_ccc"] != history(tmp_path / "d")[0]["l_ccc"]

    @pytest.mark.parametrize(
        ("place", "step", "epoch", "code"),
        [
            ("train.step:sigterm:1", 1, 0, 143),
            ("train.step:sigint:5", 5, 1, 130),  # inside the second epoch
            ("train.step:sighup:2", 2, 0, 129),
            ("train.step:sigterm:3", 3, 0, 143),  # the epoch's last step, before validation
            ("train.validate:sigterm:2", 6, 1, 143),
        ],
    )
    def test_stopped_by_a_signal_and_resumed_gives_the_bits_of_an_unbroken_run(
        self,
        place: str,
        step: int,
        epoch: int,
        code: int,
        corpus: Path,
        whole: tuple[TrainResult, dict[str, bytes]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plan, run = plan_from_config(config(corpus)), tmp_path / "run"
        with monkeypatch.context() as patch:
            fail_at(patch, place)
            with pytest.raises(
                StoppedError, match=f"at step {step}, and saved .*rrtn train --resume --out {run}"
            ) as stopped:
                loop.train(plan, run, resume=False)
        assert stopped.value.exit_code == code
        info = read_info(run / "checkpoints/last")
        assert (info.step, info.epoch, len(history(run))) == (step, epoch, epoch)
        assert_resumes(plan, run, whole)

    def test_a_signal_during_validation_is_heeded_before_it_ends(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Behind the first of several batches."""
        plan, batches, original = plan_from_config(config(corpus)), [], predict.log_mels
        clips = len(plan.data.splits["Val"].clips)

        def counted(split: SplitClips, frontend: LogMel, samples: Int64) -> Iterator[torch.Tensor]:
            for batch in original(split, frontend, samples):
                batches.append(len(split))
                yield batch

        monkeypatch.setattr(predict, "_BATCH", {"cpu": 2})
        monkeypatch.setattr(predict, "log_mels", counted)
        fail_at(monkeypatch, "train.validate:sigterm")
        with pytest.raises(StoppedError):
            loop.train(plan, tmp_path / "run", resume=False)
        assert clips > 2
        assert batches.count(clips) == 1  # the others are of Train, for the masks' fill

    @pytest.mark.parametrize(
        ("saves", "step"),
        [(1, None), (2, None), (4, 3)],
        ids=["nothing saved", "best ahead of no last", "history and best ahead of last"],
    )
    def test_killed_in_a_save_and_resumed_gives_the_bits_of_an_unbroken_run(
        self,
        saves: int,
        step: int | None,
        corpus: Path,
        whole: tuple[TrainResult, dict[str, bytes]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each epoch of this run is the best so far, so that its saves are best, last, best, last."""
        assert [record["epoch"] for record in whole[0].best.history] == [1, 2]
        plan, run, done = plan_from_config(config(corpus)), tmp_path / "run", []

        def save(*args: Any, **kwargs: Any) -> None:
            done.append(args)
            if len(done) == saves:
                raise KeyboardInterrupt
            original(*args, **kwargs)

        original = run_state.save_checkpoint
        with monkeypatch.context() as patch:
            patch.setattr(run_state, "save_checkpoint", save)
            with pytest.raises(KeyboardInterrupt):
                loop.train(plan, run, resume=False)
        last = run / "checkpoints/last"
        assert ((last / POINTER).exists(), step) == (
            (step is not None),
            read_info(last).step if step else None,
        )
        assert (run / "checkpoints/best").exists() == (saves > 1)
        assert_resumes(plan, run, whole)

    def test_timed_checkpoints_carry_a_killed_run_and_change_nothing(
        self,
        corpus: Path,
        whole: tuple[TrainResult, dict[str, bytes]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """After every step, so the epoch's last step is saved twice, before validation and after:
        both stay whole.
        """
        plan, run = plan_from_config(replace(config(corpus), checkpoint_minutes=1e-9)), tmp_path / "run"
        last = run / "checkpoints/last"
        with monkeypatch.context() as patch:
            fail_at(patch, "train.validate:raise:2")
            with pytest.raises(RuntimeError, match="failpoint"):
                loop.train(plan, run, resume=False)
        assert (read_info(last).epoch, read_info(last).step) == (1, 6)
        assert load_checkpoint(last, "weights", "optimizer", pointer=PREVIOUS)[0].step == 5
        result = loop.train(plan_from_config(config(corpus)), run, resume=True)
        assert (replace(result, run=whole[0].run), valid_bytes(run)) == whole
        info, _ = load_checkpoint(last, "weights", "optimizer", pointer=PREVIOUS)
        assert (info.epoch, info.step) == (1, 6)

    def test_more_epochs_later_are_those_of_the_longer_run(
        self, corpus: Path, whole: tuple[TrainResult, dict[str, bytes]], tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        loop.train(plan_from_config(config(corpus, optim={"epochs": 1})), run, resume=False)
        assert_resumes(plan_from_config(config(corpus)), run, whole)

    def test_t13_resuming_a_finished_run_touches_nothing(
        self, corpus: Path, whole: tuple[TrainResult, dict[str, bytes]], tmp_path: Path
    ) -> None:
        run = shutil.copytree(whole[0].run, tmp_path / "run")
        times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        again = loop.train(plan_from_config(config(corpus)), run, resume=True)
        assert replace(again, run=whole[0].run) == whole[0]
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times

    def test_a_run_is_never_overwritten(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/config.toml").write_text("")
        with pytest.raises(ConfigError, match="--resume"):
            loop.train(plan_from_config(config(corpus)), tmp_path / "run", resume=False)


def assert_resumes(plan: TrainingPlan, run: Path, whole: tuple[TrainResult, dict[str, bytes]]) -> None:
    result = loop.train(plan, run, resume=True)
    assert valid_bytes(run) == whole[1]
    assert replace(result, run=whole[0].run) == whole[0]
    assert {path.name for path in run.iterdir()} == {
        "config.toml",
        "history.jsonl",
        "checkpoints",
        "run.lock",
    }


class TestBest:
    """With validation CCCs that are written down, on one step an epoch."""

    @pytest.fixture
    def plan(self, corpus: Path) -> TrainingPlan:
        return self.plan_of(corpus, epochs=4)

    @staticmethod
    def plan_of(corpus: Path, epochs: int) -> TrainingPlan:
        return plan_from_config(
            config(corpus, model={"method": "vanilla"}, optim={"epochs": epochs, "batch_size": 15})
        )

    @staticmethod
    def script(patch: pytest.MonkeyPatch, *values: float) -> None:
        left = iter(values)
        patch.setattr(metrics, "ccc_challenge", lambda scores, ratings: np.full(scores.shape[1], next(left)))

    def test_the_first_of_equal_epochs_is_best_and_kept(
        self, plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.script(monkeypatch, -0.2, 0.3, 0.1, 0.3)
        result = loop.train(plan, tmp_path / "run", resume=False)
        assert (result.epochs, result.best.epoch, result.best.step, result.best.ccc) == (
            4,
            2,
            2,
            pytest.approx(0.3),
        )
        assert result.best.per_target == dict.fromkeys(plan.data.targets, 0.3)
        assert read_info(tmp_path / "run/checkpoints/best") == result.best
        last = read_info(tmp_path / "run/checkpoints/last")
        assert [record["val_ccc"] for record in last.history] == pytest.approx([-0.2, 0.3, 0.1, 0.3])
        folders = [tmp_path / "run/checkpoints" / kind for kind in ("best", "last")]
        best, newest = (load_checkpoint(folder, "weights")[1]["weights"]["head.weight"] for folder in folders)
        assert not torch.equal(best, newest)

    def test_a_best_from_before_the_interruption_stays_the_best(
        self, plan: TrainingPlan, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.script(monkeypatch, 0.3, 0.1, 0.2, 0.1)
        run = tmp_path / "run"
        loop.train(self.plan_of(corpus, epochs=2), run, resume=False)
        best = run_bytes(run / "checkpoints/best")
        result = loop.train(plan, run, resume=True)
        assert (result.best.epoch, result.best.ccc) == (1, pytest.approx(0.3))
        assert run_bytes(run / "checkpoints/best") == best

    def test_a_validation_that_is_not_finite_stops_the_run(
        self, plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.script(monkeypatch, 0.1, np.nan)
        with pytest.raises(StoppedError, match=r"epoch 2 \| Val CCC"):
            loop.train(plan, tmp_path / "run", resume=False)
        assert read_info(tmp_path / "run/checkpoints/last").epoch == 1


@pytest.mark.parametrize("look_every", [1, 25], ids=["at once", "at the epoch's end"])
def test_t15_a_loss_that_is_not_finite_stops_with_its_clips_named_and_the_checkpoint_whole(
    look_every: int,
    corpus: Path,
    whole: tuple[TrainResult, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One poisoned step in the second epoch; on a GPU it is found later, and named all the same."""
    plan, run, steps = plan_from_config(config(corpus)), tmp_path / "run", []
    names = [plan.data.splits["Train"].clips[i].file_id for i in epoch_order(plan.config.seed, 1, 15)[5:10]]
    original = weighting.ruwl_loss

    def poisoned(*args: Any, **more: Any) -> torch.Tensor:
        steps.append(args)
        return original(*args) * (float("nan") if len(steps) == STEPS + 2 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_LOOK_EVERY", {"cpu": look_every})
        patch.setattr(weighting, "ruwl_loss", poisoned)
        with pytest.raises(StoppedError, match="epoch 2, step 5 ") as stopped:
            loop.train(plan, run, resume=False)
    assert ", ".join(names) in str(stopped.value)
    assert len(steps) == (5 if look_every == 1 else 6)
    assert stopped.value.exit_code == 4
    assert read_info(run / "checkpoints/last").step == STEPS
    assert_resumes(plan, run, whole)


class TestMethods:
    @pytest.mark.parametrize("method", ["vanilla", "rrtn", "rrtn-ruwl"])
    def test_terms_that_are_trained_on_and_whether_ruwls_c_move(
        self, method: str, corpus: Path, tmp_path: Path
    ) -> None:
        plan = plan_from_config(config(corpus, model={"method": method}, optim={"epochs": 1}))
        result = loop.train(plan, tmp_path / "run", resume=False)
        record = history(tmp_path / "run")[0]
        weights = load_file(next((tmp_path / "run/checkpoints/best").glob("*.safetensors")))
        assert ("projector.weight" in weights) == (method != "vanilla")
        assert result.best.ccc == pytest.approx(np.mean(list(record["val_ccc_per_target"].values())))
        moved = not torch.equal(weights["ruwl.c"], torch.tensor(plan.config.ruwl.c))
        assert moved == (method == "rrtn-ruwl")
        if method == "vanilla":
            assert record["loss"] == pytest.approx(record["l_ccc"])
            assert not {"l_bt", "l_ccc_a", "weights"} & record.keys()
        if method == "rrtn":
            expected = record["l_ccc"] + record["l_ccc_a"] + 1e-4 * record["l_bt"]
            assert record["loss"] == pytest.approx(expected, rel=1e-5)
            np.testing.assert_allclose(record["weights"], [1, 1, 1e-4], rtol=1e-5)

    def test_fixed_ruwl_is_its_loss_with_c_as_it_starts(self, corpus: Path, tmp_path: Path) -> None:
        """sum_t lambda_t / c_t^2 L_t + ln(1 + c_t^2), and |2 - sum |c_t|| = 0.01 (Eqs. 5 and 6)."""
        loop.train(plan_from_config(config(corpus, ruwl={"mode": "fixed"})), tmp_path / "run", resume=False)
        for record in history(tmp_path / "run"):
            terms = record["l_ccc"] + record["l_ccc_a"] + 1e-4 * record["l_bt"]
            assert record["loss"] == pytest.approx(terms + 0.01 + 2 * np.log(2) + np.log1p(1e-4), rel=1e-5)

    @pytest.mark.parametrize(
        "section", [{"eval": {"crop": "full"}}, {"frontend": {"pad": "zero_db"}}], ids=["crop", "pad"]
    )
    def test_crop_and_pad_reach_the_passes(
        self, section: dict[str, Any], corpus: Path, tmp_path: Path
    ) -> None:
        """Clips of 200 frames are longer than some recordings.

        Crop changes validation alone, pad everything.
        """
        records = []
        for name, sections in (("plain", {}), ("changed", section)):
            frontend = {"frames": 200, **sections.get("frontend", {})}
            changed = {**sections, "frontend": frontend, "optim": {"epochs": 1, "batch_size": 15}}
            loop.train(plan_from_config(config(corpus, **changed)), tmp_path / name, resume=False)
            records += history(tmp_path / name)
        plain, changed = records
        assert plain["val_ccc"] != changed["val_ccc"]
        assert (plain["l_ccc"] == changed["l_ccc"]) == ("eval" in section)


def test_tf32_on_the_cpu_is_refused(corpus: Path) -> None:
    with pytest.raises(ConfigError, match="--precision tf32"):
        device_from_config(config(corpus, precision="tf32", device="cpu"), World())


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_compile_is_refused_with_several_ranks(corpus: Path, mode: str) -> None:
    """torch.compile loses the gradient of a sum over the ranks, and the loss would not show it."""
    with pytest.raises(ConfigError) as caught:
        device_from_config(config(corpus, compile=mode, device="cpu"), World(1, 2, 1))
    assert (caught.value.came, caught.value.fix) == ("2 processes", "--compile off")
    device_from_config(config(corpus, compile=mode, device="cpu"), World())
    device_from_config(config(corpus, device="cpu"), World(1, 2, 1))


# Of torch's own compiler: its use of deprecated parts of torch.
@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning",
    "ignore:.*torch._prims_common.check:FutureWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",
)
class TestCompiled:
    """torch.compile with its tracing; what it has traced then runs as it is, without a C++ compiler."""

    @pytest.fixture(autouse=True)
    def graphs(self, monkeypatch: pytest.MonkeyPatch) -> Iterable[list[Any]]:
        """Those that were traced. Another one of the same code is none that the compiler still allows."""
        traced: list[Any] = []

        def inductor(graph: torch.fx.GraphModule, *arguments: Any, **options: Any) -> Any:
            traced.append(graph)
            return graph.forward

        def one_block(name: str, *, n_mels: int) -> PannsCnn:
            return PannsCnn(n_mels, channels=(4,), pooled_blocks=1)

        monkeypatch.setattr(model, "encoder_from_name", one_block)
        monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", inductor)
        torch.compiler.reset()
        with torch._dynamo.config.patch(recompile_limit=1):
            yield traced
        torch.compiler.reset()

    def test_a_second_run_of_a_process_is_compiled_as_the_first(
        self, corpus: Path, tmp_path: Path, graphs: list[Any]
    ) -> None:
        """Those of a table of runs, and of a cross-validation."""
        settings = {"model": {"method": "vanilla"}, "compile": "default", "optim": {"epochs": 1}}
        counts = []
        for name in ("first", "second"):
            plan = plan_from_config(config(corpus, **settings))
            loop.train(plan, tmp_path / name, resume=False)
            counts.append(len(graphs))
        assert counts == [2, 4]  # of a step and of validation

    def test_a_run_whose_steps_would_no_longer_be_compiled_is_stopped(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        plan = plan_from_config(config(corpus, compile="default"))
        with (
            torch._dynamo.config.patch(recompile_limit=0),
            pytest.raises(StoppedError, match=r"^torch\.compile \| .*Dynamo recompile limit.*--compile off"),
        ):
            loop.train(plan, tmp_path / "run", resume=False)
        assert history(tmp_path / "run") == []


def test_what_the_sounds_show_is_told_before_the_first_epoch(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(corpus, tmp_path / "data"))
    clips = plan_from_config(config(data)).data.splits
    train, val = clips["Train"].clips, clips["Val"].clips
    shutil.copyfile(train[3].path, val[0].path)
    soundfile.write(train[1].path, np.zeros(8000), 16_000)
    loop.train(plan_from_config(config(data, optim={"epochs": 1})), tmp_path / "run", resume=False)
    said = capsys.readouterr().err
    assert f"(first: {train[3].file_id} in Train = {val[0].file_id} in Val)" in said
    assert f"1 of {len(train) + len(val)} clips is silent" in said
