"""From settings to a plan or a run, without the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from rrtn.runtime.errors import ConfigError
from rrtn.train.config import DataConfig
from rrtn.train.request import TrainingRequest, config_from_settings, new_config, training_from_request
from rrtn.train.run_folder import RunFolder
from rrtn.train.sections import flat_settings
from rrtn.train.start import plan_training

MakeData = Callable[..., Path]
TARGETS = (
    "targets: Awe (8 values), Fear (8 values); metadata by their names: Age (--targets takes any column)"
)


def settings(folder: Path, **optim: Any) -> dict[str, Any]:
    return {"device": "cpu", "seed": None, "data": {"dir": str(folder)}, "optim": optim}


def test_settings_are_named_as_in_the_file() -> None:
    nested = {"seed": 3, "device": None, "optim": {"lr": 0.01, "epochs": None}, "data": {}}
    assert flat_settings(nested) == {"seed": 3, "device": None, "optim.lr": 0.01, "optim.epochs": None}


def test_what_was_given_wins_over_the_file(tmp_path: Path, make_data: MakeData) -> None:
    config = tmp_path / "config.toml"
    config.write_text("seed = 7\n[optim]\nepochs = 2\nbatch_size = 4\n")
    said: list[str] = []
    request = TrainingRequest(config_file=config, settings=settings(make_data(), epochs=5))
    plan = plan_training(training_from_request(request), say=said.append)
    assert plan
    assert (plan.config.seed, plan.config.optim.epochs, plan.config.optim.batch_size) == (7, 5, 4)
    assert said == [TARGETS]


OLD_PLACE = {
    "dir": "old",
    "csv": "old/t.csv",
    "audio": "old/wav",
    "file_column": "clip",
    "split_column": "part",
    "speaker_column": "who",
}


@pytest.mark.parametrize("fold", ["", "1/3"])
@pytest.mark.parametrize("given", [{"dir": "new"}, {"csv": "new/t.csv"}])
def test_other_data_leaves_nothing_of_the_place_that_the_file_names(
    tmp_path: Path, given: dict[str, str], fold: str
) -> None:
    """Or the run would learn from the old audio, or from the old table as a whole."""
    config = tmp_path / "config.toml"
    config.write_text(tomli_w.dumps({"data": {**OLD_PLACE, "targets": ["Awe"], "scale": ["1:5"]}}))

    def data_of(flags: dict[str, str]) -> DataConfig:
        if fold:
            return config_from_settings({"data": flags}, config, fold=fold).data
        return training_from_request(
            TrainingRequest(config_file=config, settings={"data": flags})
        ).config.data

    labels = {"targets": ("Awe",), "scale": ("1:5",), "fold": fold}
    assert data_of(given) == DataConfig(**given, **labels)  # type: ignore[arg-type]
    both = {**given, "speaker_column": "who"}
    assert data_of(both) == DataConfig(**both, **labels)  # type: ignore[arg-type]
    kept = {**OLD_PLACE, "audio": "moved"}
    assert data_of({"audio": "moved"}) == DataConfig(**kept, **labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "came"),
    [
        ({"task": "avb-two", "targets": ["Valence"]}, r"--targets \| without Arousal"),
        (
            {"task": "exvo-multitask", "targets": ["Awe", "Age"]},
            r"--targets \| without Excitement, .*Surprise",
        ),
        ({"task": "exvo-multitask", "class_targets": ["Sex"]}, r"--class-target \| without Country"),
        ({"task": "avb-type", "class_targets": ["Type"]}, r"--class-target \| without Voc_Type"),
    ],
)
def test_targets_without_those_of_the_task_are_refused(
    tmp_path: Path, data: dict[str, Any], came: str
) -> None:
    """Its score would be no number, and its submission would lack columns."""
    with pytest.raises(ConfigError, match=came) as caught:
        new_config({"data": data})
    assert caught.value.wanted == f"all that --task {data['task']} submits and is judged by"
    (tmp_path / "data.toml").write_text(tomli_w.dumps(data))
    with pytest.raises(ConfigError, match=came):
        new_config({"data.dir": str(tmp_path)})
    assert new_config({"data.dir": str(tmp_path), "data.task": ""}).data.task == ""
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"data": data}))  # as of a run of before
    assert training_from_request(TrainingRequest(run=tmp_path, resume=True)).config.data.task == data["task"]


@pytest.mark.parametrize(
    ("scale", "left"),
    [
        (["Valence=-1:1", "Arousal=1:5"], ("Valence=-1:1",)),
        (["auto", "Arousal=1:5"], ("auto",)),
        (["1:9", "Arousal=1:5"], ("1:9",)),
        (["Arousal=1:5"], ()),
    ],
)
def test_fewer_targets_than_a_file_has_leave_their_scales(
    tmp_path: Path, scale: list[str], left: tuple[str, ...]
) -> None:
    """Scales of data.toml and of config.toml; one that a flag gives stays as it was given."""
    (tmp_path / "data.toml").write_text(tomli_w.dumps({"scale": scale}))
    flags = {"data": {"dir": str(tmp_path), "targets": ["Valence"]}}
    assert new_config(flags).data.scale == left
    document = {"data": {"scale": scale}}
    assert new_config({"data": {"targets": ["Valence"]}}, document).data.scale == left
    assert new_config({"data": {}}, document).data.scale == tuple(scale)
    asked = {"data.targets": ["Valence"], "data.scale": ["Arousal=1:5"]}
    assert new_config(asked, document).data.scale == ("Arousal=1:5",)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"classes": ["Type=Laugh", "Type=Cry"]}, "NAME=CLASS of a --class-target"),
        ({"classes": ["Type=Laugh", "Sex=f"], "class_targets": ["Type"]}, "NAME=CLASS of Type"),
        ({"classes": ["Type=Laugh"], "task": "avb-type"}, "NAME=CLASS of Voc_Type"),
    ],
)
def test_classes_of_no_class_target_are_refused(data: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.classes") as caught:
        new_config({"data": data})
    assert caught.value.wanted == wanted


def test_fewer_class_targets_than_a_file_has_leave_their_classes() -> None:
    classes = ["Type=Laugh", "Type=Cry", "Sex=f", "Sex=m"]
    document = {"data": {"class_targets": ["Type", "Sex"], "classes": classes}}
    assert new_config({}, document).data.classes == tuple(classes)
    assert new_config({"data": {"class_targets": ["Sex"]}}, document).data.classes == ("Sex=f", "Sex=m")


def test_a_strict_resume_is_one_of_a_resume() -> None:
    with pytest.raises(ConfigError, match=r"--strict-resume \| without --resume"):
        training_from_request(TrainingRequest(strict_resume=True))


def test_a_task_takes_more_than_it_submits() -> None:
    targets = ["Arousal", "Joy", "Valence"]
    assert new_config({"data": {"task": "avb-two", "targets": targets}}).data.targets == tuple(targets)


def test_notes_are_said(make_data: MakeData) -> None:
    said: list[str] = []
    plan = plan_training(
        training_from_request(TrainingRequest(settings=settings(make_data()))), say=said.append
    )
    assert plan
    assert said == [TARGETS, *(f"note: {note}" for note in plan.notes)]
    assert "instead of the paper's 128" in said[1]


def test_a_plan_makes_no_folder(tmp_path: Path, make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan_training(
        training_from_request(TrainingRequest(run=Path("run"), settings=settings(make_data()))), say=print
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_there_must_be_a_run_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (None, tmp_path / "gone"):
        with pytest.raises(ConfigError) as caught:
            plan_training(training_from_request(TrainingRequest(run=run, resume=True)), say=print)
        assert caught.value.subject == "--resume"
        assert str(run or "runs/") in caught.value.came


def test_a_run_goes_on_with_its_own_config(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    request = TrainingRequest(run=tmp_path, config_file=Path("other.toml"), resume=True)
    with pytest.raises(ConfigError, match="--config"):
        plan_training(training_from_request(request), say=print)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--lr", "99"],
        ["--batch-size", "1"],
        ["--encoder", "cnn15"],
        ["--method", "vanila"],
        ["--precision", "fp8"],
        ["--seed", "-1"],
        ["--resume", "--out", "nowhere"],
        ["--config", "nowhere.toml"],
        ["--out", "begun"],
    ],
)
def test_n19_a_wrong_value_is_refused_before_torch_is_imported(tmp_path: Path, wrong: list[str]) -> None:
    """Without torch the refusal is the same."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.toml").touch()
    program = "import sys; sys.modules['torch'] = None; from rrtn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", *wrong],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "torch" not in done.stderr
    assert wrong[0] in done.stderr or "nowhere.toml" in done.stderr


def test_a_run_from_before_there_was_a_compile_mode_goes_on_without_one(tmp_path: Path) -> None:
    """Its steps were eager; `auto` would compile those that are left."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("seed = 3\n")
    requested = training_from_request(TrainingRequest(run=run.path, resume=True))
    assert (requested.config.compile, requested.changed) == ("off", [])


@pytest.mark.parametrize(
    ("own", "asked", "is_same"),
    [
        (["Arousal=1:9"], "1:9", True),
        (["Arousal=1:9"], "1.0:9,Valence=-1:1", True),
        (["Arousal=1:9", "Joy=0:1"], "Joy=0:1,Arousal=1:9", True),
        (["Arousal=1:9", "Joy=0:1"], "Arousal=1:9", True),  # the other one is on 0 to 1 anyway
        (["auto", "Arousal=1.3:8.8", "Joy=0.1:1"], "auto", True),
        (["auto", "Arousal=1.3:8.8", "Joy=0:1"], "Joy=0:1,auto", True),
        ([], "0:1", True),
        (["Arousal=1:9"], "1:7", False),
        (["Arousal=1:9", "Joy=0:1"], "1:9", False),
        (["Arousal=1:9"], "auto", False),
        (["auto", "Arousal=1:9", "Joy=0:1"], "Arousal=1:9", False),
        (["auto", "Arousal=1:9", "Joy=0:1"], "Joy=1:9,auto", False),
    ],
)
def test_the_command_that_began_a_run_goes_on_with_it(
    tmp_path: Path, own: list[str], asked: str, is_same: bool
) -> None:
    """A run has resolved what the command has left open, or has said in other words."""
    targets = ["Arousal", "Joy"] if len(own) > 1 else ["Arousal"]
    data = f"[data]\ntargets = {json.dumps(targets)}\nscale = {json.dumps(own)}\n"
    (tmp_path / "config.toml").write_text(f'precision = "fp32"\n{data}')
    settings = {"precision": "auto", "data": {"scale": asked.split(",")}}
    request = TrainingRequest(run=tmp_path, settings=settings, resume=True)
    if is_same:
        found = training_from_request(request)
        assert (found.config.precision, list(found.config.data.scale), found.changed) == ("fp32", own, [])
        return
    with pytest.raises(ConfigError, match=r"other settings than the run.s: data\.scale"):
        training_from_request(request)


@pytest.mark.parametrize("broken", ["scale = 3", "targets = 3", 'scale = ["9:1"]'])
def test_a_broken_config_is_refused_by_its_name_whatever_the_flags(tmp_path: Path, broken: str) -> None:
    (tmp_path / "config.toml").write_text(f"[data]\n{broken}\n")
    request = TrainingRequest(run=tmp_path, settings={"data": {"scale": ["1:9"]}}, resume=True)
    with pytest.raises(ConfigError):
        training_from_request(request)
