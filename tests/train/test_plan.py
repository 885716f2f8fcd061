"""What is decided before training: epochs, batch, steps, notes, parameters."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rrtn.runtime.errors import ConfigError
from rrtn.train import plan
from rrtn.train.config import Config, DataConfig, ModelConfig, OptimConfig
from rrtn.train.method.choices import ENCODER_NAMES
from rrtn.train.plan import (
    _default_batch,
    data_folder,
    data_from_config,
    describe,
    network_from_config,
    plan_from_config,
    shapes_from_config,
)

MakeData = Callable[..., Path]
PROJECTOR = 512 * 2048 + 2048  # one Linear with bias
HEAD = 512 * 2 + 2


@pytest.fixture
def config(make_data: MakeData) -> Config:
    return Config(data=DataConfig(dir=str(make_data())))


def with_batch(config: Config, batch_size: int) -> Config:
    return replace(config, optim=OptimConfig(batch_size=batch_size, epochs=3))


def test_the_paper_is_the_default_where_the_data_allow_it(config: Config) -> None:
    plan = plan_from_config(config)
    assert plan.config.optim.epochs == 60
    assert plan.config.optim.batch_size == 8  # all there are
    assert [note for note in plan.notes if "--batch-size 8 instead of the paper's 128" in note] == list(
        plan.notes
    )


@pytest.mark.parametrize(
    ("clips", "batch"),
    [(2, 2), (15, 15), (100, 16), (319, 16), (320, 32), (1279, 64), (1280, 128), (19_990, 128)],
)
def test_the_batch_leaves_ten_steps_an_epoch_or_is_16(clips: int, batch: int) -> None:
    assert _default_batch(clips) == batch


def test_a_batch_that_was_asked_for_is_taken_without_a_note(config: Config) -> None:
    plan = plan_from_config(with_batch(config, 4))
    assert plan.config.optim.batch_size == 4
    assert plan.notes == ()


@pytest.mark.parametrize("eps", [0.0, 5e-324])
def test_an_epsilon_of_nothing_is_told(config: Config, eps: float) -> None:
    config = with_batch(config, 4)
    (note,) = plan_from_config(replace(config, optim=replace(config.optim, eps=eps))).notes
    assert note.startswith(f"optim.eps {eps:g} is 0 in float32")


@pytest.mark.parametrize(("device", "asked", "resolved"), [("cpu", "auto", "fp32"), ("cpu", "bf16", "bf16")])
def test_the_precision_is_resolved_and_a_cpu_stays_with_fp32(
    config: Config, device: str, asked: str, resolved: str
) -> None:
    plan = plan_from_config(replace(config, device=device, precision=asked))  # type: ignore[arg-type]
    assert plan.config.precision == resolved
    assert plan_from_config(plan.config).config == plan.config


class TestCompileMode:
    """What `auto` becomes."""

    @pytest.fixture(autouse=True)
    def _gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a machine with an H100 and a C compiler."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setenv("CC", "gcc")

    def mode(self, config: Config, *, ranks: int = 1) -> str:
        return plan_from_config(with_batch(config, 4), ranks=ranks).config.compile

    def test_is_default_for_one_process_on_a_gpu(self, config: Config) -> None:
        assert self.mode(config) == "default"

    def test_is_off_with_several_ranks_and_on_the_cpu(self, config: Config) -> None:
        assert self.mode(config, ranks=2) == "off"
        assert self.mode(replace(config, device="cpu")) == "off"

    @pytest.mark.parametrize("missing", ["capability", "compiler", "triton"])
    def test_is_off_where_nothing_could_compile(
        self, config: Config, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        if missing == "capability":
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
        elif missing == "compiler":
            monkeypatch.delenv("CC")
            monkeypatch.setenv("PATH", "")
        else:
            monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
        assert self.mode(config) == "off"

    @pytest.mark.parametrize("mode", ["off", "default", "reduce-overhead"])
    def test_a_mode_that_was_asked_for_stays(self, config: Config, mode: str) -> None:
        assert self.mode(replace(config, compile=mode)) == mode  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_a_batch_and_the_steps_stay(config: Config, ranks: int) -> None:
    assert plan_from_config(with_batch(config, 4), ranks=ranks).steps_per_epoch == 2


def test_a_batch_that_ranks_cannot_share_equally_is_refused(config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"^--batch-size \| 4 \| expected a multiple of 3: the processes share it equally$"
    ):
        plan_from_config(with_batch(config, 4), ranks=3)


def test_t17_targets_without_variation_in_train_are_noted(make_data: MakeData, csv_lines: list[str]) -> None:
    """Awe is 0.4 on every Train line, and varies in Val; Fear varies."""
    constant = [",".join([*line.split(",")[:5], "0.4", line.split(",")[6]]) for line in csv_lines[1:9]]
    folder = make_data([csv_lines[0], *constant, *csv_lines[9:]])
    plan = plan_from_config(with_batch(Config(data=DataConfig(dir=str(folder))), 4))
    assert plan.notes == ("no variation in Train, so nothing to learn: Awe",)


def test_targets_without_variation_in_val_are_noted(make_data: MakeData, csv_lines: list[str]) -> None:
    constant = [",".join([*line.split(",")[:5], "0.4", line.split(",")[6]]) for line in csv_lines[9:]]
    folder = make_data([*csv_lines[:9], *constant])
    plan = plan_from_config(with_batch(Config(data=DataConfig(dir=str(folder))), 4))
    assert "no variation in Val, so a CCC of 0 there says nothing: Awe" in plan.notes


@pytest.mark.parametrize(("batch_size", "steps"), [(2, 4), (3, 2), (5, 1), (8, 1)])
def test_an_incomplete_last_batch_is_dropped(config: Config, batch_size: int, steps: int) -> None:
    plan = plan_from_config(with_batch(config, batch_size))
    assert plan.steps_per_epoch == steps
    assert plan.steps == 3 * steps


def test_a_batch_larger_than_the_training_split_is_refused(config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"^--batch-size \| 9 \| expected at most 8, the number of training clips$"
    ):
        plan_from_config(with_batch(config, 9))


@pytest.mark.parametrize("size", [{"frames": 16}, {"n_mels": 16}])
def test_clips_that_an_encoder_pools_to_nothing_are_refused(config: Config, size: dict[str, int]) -> None:
    small = replace(config, frontend=replace(config.frontend, **size))  # type: ignore[arg-type]
    plan_from_config(replace(small, model=replace(config.model, encoder="cnn10")))
    with pytest.raises(ConfigError, match=r"16 (frames|mels).* \| expected clips of which .* of cnn14"):
        plan_from_config(replace(small, model=replace(config.model, encoder="cnn14")))


def test_infinite_minutes_between_checkpoints_can_be_written_as_json(config: Config) -> None:
    plan = plan_from_config(replace(config, checkpoint_minutes=math.inf))
    json.dumps(plan.config.to_dict(), allow_nan=False)
    assert plan.config.checkpoint_minutes > 1e6


def test_the_resolved_config_names_its_targets_and_plans_to_itself(config: Config) -> None:
    plan = plan_from_config(config)
    assert plan.config.data.targets == ("Awe", "Fear")
    again = plan_from_config(plan.config)
    assert (again.config, again.steps_per_epoch) == (plan.config, plan.steps_per_epoch)


def test_warnings_of_the_data_are_notes(make_data: MakeData, csv_lines: list[str]) -> None:
    folder = make_data(csv_lines[:-1])
    plan = plan_from_config(with_batch(Config(data=DataConfig(dir=str(folder))), 4))
    assert plan.notes == plan.data.warnings
    assert "00013.wav" in plan.notes[0]


class TestFraction:
    """Half of the training clips: two of four speakers, with two clips each."""

    @pytest.fixture
    def half(self, config: Config) -> Config:
        config = with_batch(config, 2)
        return replace(config, data=replace(config.data, fraction=0.5))

    @pytest.fixture
    def drawn(self, half: Config) -> set[str]:
        return {clip.speaker for clip in data_from_config(half).splits["Train"].clips}

    def test_clips_without_a_class_are_refused_and_runs_of_before_are_read(
        self, half: Config, drawn: set[str], make_data: MakeData, csv_lines: list[str]
    ) -> None:
        header, *rows = csv_lines
        kinds = [
            ("Laugh" if row.split(",")[2] in {*drawn, "Val_4"} else "Gasp") if i % 2 else "Cry"
            for i, row in enumerate(rows)
        ]
        make_data([f"{header},Kind", *(f"{row},{kind}" for row, kind in zip(rows, kinds, strict=True))])
        half = replace(half, data=replace(half.data, class_targets=("Kind",)))
        with pytest.raises(ConfigError) as caught:
            plan_from_config(half)
        assert str(caught.value) == (
            "--fraction | 0.5 with seed 0 leaves no training clip with Kind=Gasp | expected at least 1 | "
            "take a larger fraction, or another seed, or leave the cells of this class empty"
        )
        assert len(data_from_config(half).splits["Train"].clips) == 4
        assert plan_from_config(replace(half, data=replace(half.data, fraction=1.0))).steps_per_epoch == 4

    def test_a_target_that_one_of_the_clips_has_is_refused(
        self, half: Config, drawn: set[str], make_data: MakeData, csv_lines: list[str]
    ) -> None:
        blank = [i for i, line in enumerate(csv_lines) if line.split(",")[2] in drawn][1:]
        make_data([f"{line.rpartition(',')[0]}," if i in blank else line for i, line in enumerate(csv_lines)])
        with pytest.raises(
            ConfigError, match=r"leaves 1 training clip with Fear \| expected at least 2 .* leave this target"
        ):
            plan_from_config(half)

    def test_one_clip_is_refused(self, half: Config, make_data: MakeData, csv_lines: list[str]) -> None:
        make_data([line.replace("Train_", f"Train_{i}_") for i, line in enumerate(csv_lines)])
        with pytest.raises(
            ConfigError, match=r"0\.1 with seed 0 leaves 1 training clip \| expected at least 2"
        ):
            plan_from_config(replace(half, data=replace(half.data, fraction=0.1)))

    def test_notes_count_the_clips_that_are_trained_on(
        self, half: Config, drawn: set[str], make_data: MakeData, csv_lines: list[str]
    ) -> None:
        """A speaker who is in Val, too, is no leak where no clip of theirs is drawn."""
        leaked = min({f"Train_{i}" for i in range(4)} - drawn)
        lines = [line.replace("Val_4", leaked) for line in csv_lines]
        first = next(i for i, line in enumerate(lines) if line.split(",")[2] in drawn)
        for i in (first, *(i for i, line in enumerate(lines) if f",Train,{leaked}," in line)):
            lines[i] = f"{lines[i].rpartition(',')[0]},"
        make_data(lines)
        blank = "blank, and left out of losses and metrics, of"
        assert plan_from_config(half).notes == (f"{blank} 4 clips in Train: Fear 1",)
        whole = plan_from_config(replace(half, data=replace(half.data, fraction=1.0))).notes
        assert whole[0] == f"{blank} 8 clips in Train: Fear 3"
        assert whole[1].startswith("SPEAKER LEAK: 1 speaker")


def test_classes_of_the_settings_that_no_clip_has_are_told(
    config: Config, make_data: MakeData, csv_lines: list[str]
) -> None:
    header, *rows = csv_lines
    make_data([f"{header},Kind", *(f"{row},{'LC'[i % 2]}" for i, row in enumerate(rows))])
    named = replace(config.data, class_targets=("Kind",), classes=("Kind=C", "Kind=G", "Kind=L"))
    assert plan_from_config(with_batch(replace(config, data=named), 4)).notes == (
        "no clip in Train, so never learned: Kind=G",
    )


def test_a_given_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert data_folder(Config(data=DataConfig(dir=str(tmp_path)))) == tmp_path


def test_the_description_counts_clips_speakers_and_steps(config: Config) -> None:
    description = describe(plan_from_config(with_batch(config, 3)))
    assert description["data"]["clips"] == {"Train": 8, "Val": 4, "Test": 2}
    assert description["data"]["speakers"] == {"Train": 4, "Val": 2, "Test": 1}
    assert description["data"]["targets"] == ["Awe", "Fear"]
    assert (description["steps"], description["steps_per_epoch"]) == (6, 2)
    assert description["config"]["optim"]["batch_size"] == 3


@pytest.mark.parametrize(
    ("method", "projector"), [("rrtn-ruwl", PROJECTOR), ("rrtn", PROJECTOR), ("vanilla", 0)]
)
def test_parameters_are_those_of_the_network_and_vanilla_has_no_projector(
    config: Config, method: str, projector: int
) -> None:
    plan = plan_from_config(replace(config, model=ModelConfig(method=method)))  # type: ignore[arg-type]
    parameters = describe(plan)["parameters"]
    assert (parameters["head"], parameters["projector"]) == (HEAD, projector)
    # 11,175,370 of the paper's Table 2 (exact, as we count) without its ten-way head; bn0 has 128.
    assert parameters["encoder"] == 11_175_370 - (512 * 10 + 10) + 128
    assert parameters["total"] == parameters["encoder"] + HEAD + projector
    assert describe(plan)["bytes_of_training_state"] == 16 * parameters["total"]


def test_the_seed_alone_sets_the_first_weights(config: Config) -> None:
    resolved = plan_from_config(config).config
    first = network_from_config(resolved).head.weight.detach()
    torch.rand(5)
    drawn = torch.get_rng_state()
    assert torch.equal(network_from_config(resolved).head.weight, first)
    assert torch.equal(torch.get_rng_state(), drawn), "the caller's random numbers"
    assert not torch.equal(network_from_config(replace(resolved, seed=1)).head.weight, first)


@pytest.mark.parametrize("encoder", ENCODER_NAMES)
def test_shapes_are_those_of_the_network_and_hold_no_numbers(config: Config, encoder: str) -> None:
    config = plan_from_config(replace(config, model=ModelConfig(encoder=encoder))).config  # type: ignore[arg-type]
    shapes, real = (make(config).state_dict() for make in (shapes_from_config, network_from_config))
    assert all(tensor.is_meta for tensor in shapes.values())
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in shapes.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in real.items()
    }


SHAPES = """
import sys
from rrtn.train.config import Config, ModelConfig
from rrtn.train.method.choices import ENCODER_NAMES
from rrtn.train.plan import shapes_from_config
for encoder in ENCODER_NAMES:
    shapes_from_config(Config(model=ModelConfig(encoder=encoder)))
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


def test_shapes_need_no_compiler() -> None:
    """torch imports its own, for half a second, to draw a normal distribution on the meta device."""
    run = [sys.executable, "-c", SHAPES]
    assert subprocess.run(run, check=True, capture_output=True, text=True, timeout=100).stdout == "[]\n"
