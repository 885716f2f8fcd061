"""Settings: what is written is read back, and every mistake is named as its user wrote it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.spec import FrontendSpec
from rrtn.train.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    config_from_dict,
    config_from_toml,
    differences,
    merged,
)
from rrtn.train.views import AugmentConfig

UNUSUAL = Config(
    seed=7,
    device="cpu",
    data=DataConfig(dir='/data/"Hume" VB', targets=("Awe", "Schreck, groß")),
    model=ModelConfig(encoder="cnn14", method="vanilla"),
    loss=LossConfig(off_diagonal=0.005, ruwl_lambda=(1, 2, 1e-9), ruwl_c=(0.5, 1, 0.1)),
    augment=AugmentConfig(time_width=32, time_stripes=1, freq_width=4, freq_stripes=3),
    optim=OptimConfig(epochs=3, batch_size=16, lr=1 / 3, ruwl_lr=1e-7, eps=1e-6, weight_decay=0),
    frontend=FrontendSpec(hop=320, peak_dbfs=-6),
)


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(document, source="my.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("config", [Config(), UNUSUAL])
def test_toml_gives_back_every_setting(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert config_from_toml(path) == config


def test_the_unusual_config_differs_from_the_default_everywhere() -> None:
    """Or the round trip above could drop a setting unseen."""
    settings = sum(len(dataclasses.fields(part)) for part in vars(Config()).values() if dataclasses.is_dataclass(part)) + 2
    same = {"frontend.sampling_rate", "frontend.n_fft", "frontend.n_mels", "frontend.f_min", "frontend.f_max"}
    same |= {"frontend.power_floor", "frontend.frames"}
    assert len(differences(Config(), UNUSUAL)) == settings - len(same)


def test_an_empty_document_is_the_paper() -> None:
    config = config_from_dict({}, source="flags")
    assert (config.model.method, config.optim.lr, config.optim.eps, config.optim.weight_decay) == (
        "rrtn-ruwl",
        1e-3,
        1e-8,
        0.01,
    )
    assert (config.loss.off_diagonal, config.loss.ruwl_lambda, config.loss.ruwl_c) == (0.001, (1, 1, 1e-8), (1, 1, 0.01))
    assert (config.augment.time_width, config.augment.time_stripes) == (64, 2)
    assert (config.augment.freq_width, config.augment.freq_stripes) == (8, 2)


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    lr = config_from_dict({"optim": {"lr": 1}}, source="my.toml").optim.lr
    assert (lr, type(lr)) == (1.0, float)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"sed": 1}, ("my.toml", "unknown: sed", "seed")),
        ({"optim": {"learning_rate": 1.0}}, ("my.toml", "unknown: optim.learning_rate", "lr")),
        ({"optim": {"epochs": 1.5}}, ("my.toml", "optim.epochs = 1.5", "expected int")),
        ({"optim": {"epochs": True}}, ("my.toml", "optim.epochs = True", "expected int")),
        ({"optim": {"lr": "fast"}}, ("my.toml", "optim.lr = 'fast'", "int | float")),
        ({"optim": 3}, ("my.toml", "optim = 3", "Mapping")),
        ({"data": {"targets": "Awe"}}, ("my.toml", "data.targets = 'Awe'", "list")),
        ({"data": {"targets": ["Awe", 1]}}, ("my.toml", "data.targets = 1", "str")),
        ({"loss": {"ruwl_c": [1, 1, "x"]}}, ("my.toml", "loss.ruwl_c = 'x'", "int | float")),
        ({"model": {"encoder": 18}}, ("my.toml", "model.encoder = 18", "str")),
    ],
)
def test_unknown_keys_and_wrong_types_are_named_with_their_section(document: dict[str, Any], named: tuple[str, ...]) -> None:
    message = refused(document)
    assert [part for part in named if part not in message] == []


@pytest.mark.parametrize(
    ("document", "flag"),
    [
        ({"model": {"encoder": "vgg"}}, "--encoder (model.encoder) | 'vgg' | expected one of resnet18, cnn10, cnn14"),
        ({"model": {"method": "twins"}}, "--method (model.method) | 'twins' | expected one of vanilla, rrtn, rrtn-ruwl"),
        ({"device": "tpu"}, "--device (device) | 'tpu' | expected one of auto, cpu, cuda"),
        ({"seed": -1}, "--seed (seed) | -1"),
        ({"seed": 2**63}, "--seed (seed) | 9223372036854775808"),
        ({"optim": {"epochs": -1}}, "--epochs (optim.epochs) | -1"),
        ({"optim": {"batch_size": -4}}, "--batch-size (optim.batch_size) | -4"),
        ({"optim": {"batch_size": 1}}, "--batch-size (optim.batch_size) | 1"),
        ({"optim": {"lr": 0}}, "--lr (optim.lr) | 0.0"),
        ({"optim": {"lr": float("nan")}}, "--lr (optim.lr) | nan"),
        ({"optim": {"weight_decay": -0.1}}, "optim.weight_decay | -0.1"),
        ({"optim": {"eps": float("nan")}}, "optim.eps | nan"),
        ({"loss": {"ruwl_c": [1, 0, 1]}}, "loss.ruwl_lambda, loss.ruwl_c | expected three numbers"),
        ({"loss": {"ruwl_c": [1, float("nan"), 1]}}, "loss.ruwl_lambda, loss.ruwl_c | expected three numbers"),
        ({"loss": {"ruwl_lambda": [1, 1]}}, "loss.ruwl_lambda, loss.ruwl_c | expected three numbers"),
        ({"augment": {"time_width": 0}}, "augment.time_width | 0 | expected at least 1"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_that_the_user_wrote(document: dict[str, Any], flag: str) -> None:
    assert flag in refused(document)


@pytest.mark.parametrize(
    ("content", "named"), [(b"seed = ", "expected TOML"), (b"\xff\xfe", "expected TOML"), (None, "No such file")]
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=named) as caught:
        config_from_toml(path)
    assert str(caught.value).startswith(str(path))


def test_flags_win_over_the_document_and_what_is_not_given_does_not() -> None:
    document = {"seed": 1, "optim": {"lr": 0.1, "epochs": 3}}
    result = merged(document, {"seed": None, "optim.lr": 0.5, "model.encoder": "cnn10", "device": "cpu"})
    assert result == {"seed": 1, "optim": {"lr": 0.5, "epochs": 3}, "model": {"encoder": "cnn10"}, "device": "cpu"}
    assert document == {"seed": 1, "optim": {"lr": 0.1, "epochs": 3}}


def test_a_flag_over_what_should_be_a_section_is_refused_by_name() -> None:
    assert "optim = 3" in refused(merged({"optim": 3}, {"optim.lr": 0.1}))


def test_differences_name_each_setting_with_both_values() -> None:
    changed = dataclasses.replace(Config(), seed=2, optim=OptimConfig(lr=0.1))
    assert differences(Config(), changed) == ["seed: 0 -> 2", "optim.lr: 0.001 -> 0.1"]
    assert differences(UNUSUAL, dataclasses.replace(UNUSUAL)) == []
