"""Settings: what is written is read back, and every mistake is named as its user wrote it."""

import dataclasses
import functools
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.spec import FrontendSpec
from rrtn.train.config import (
    Config,
    DataConfig,
    EvalConfig,
    HeadConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ProjectorConfig,
    RuwlConfig,
    config_from_dict,
)
from rrtn.train.config_file import changes_on_resume, config_from_toml, differences, merged, toml_from_config
from rrtn.train.method.views import AugmentConfig
from rrtn.train.sections import flat_settings

UNUSUAL = Config(
    seed=7,
    device="cpu",
    precision="fp32",
    compile="max-autotune",
    checkpoint_minutes=0.5,
    tensorboard=True,
    data=DataConfig(
        dir='/data/"Hume" VB',
        targets=("Awe", "Schreck, groß"),
        scale=("auto", "Schreck, groß=-1:1"),
        class_targets=("Type",),
        classes=("Type=a]\n[b]", 'Type="""'),
        task="avb-two",
        channel=2,
        fraction=0.25,
        csv="/data/a.tsv",
        audio="/data/sounds",
        file_column="Datei",
        split_column="Teil",
        speaker_column="Wer",
        fold="2/5",
    ),
    model=ModelConfig(encoder="cnn14", init="/models/Cnn14_16k.pth"),
    head=HeadConfig(activation="linear"),
    projector=ProjectorConfig(layers=3, units=8192),
    loss=LossConfig(off_diagonal=0.005),
    ruwl=RuwlConfig(lambdas=(1, 2, 1e-9), c=(0.5, 1, 0.1), lr=1e-7),
    augment=AugmentConfig(time_width=32, time_stripes=1, freq_width=4, freq_stripes=3),
    optim=OptimConfig(
        epochs=3, batch_size=16, lr=1 / 3, eps=1e-6, weight_decay=0, schedule="cosine", warmup_epochs=0.5
    ),
    eval=EvalConfig(crop="full"),
    frontend=FrontendSpec(hop=320, peak_dbfs=-6, pad="zero_db", trim=True),
)


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(document, source="my.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


AWKWARD = Config(
    checkpoint_minutes=math.inf,
    data=DataConfig(
        dir="".join(map(chr, range(0x120))) + "\u2028\U0001f600",
        targets=('"""', "a]\n[b]", "#", "\\", "[", ",", ""),
    ),
    optim=OptimConfig(eps=5e-324, weight_decay=1e300),
)


@pytest.mark.parametrize("config", [Config(), UNUSUAL, AWKWARD])
def test_toml_gives_back_every_setting(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(toml_from_config(config), encoding="utf-8")
    assert config_from_toml(path) == config


@pytest.mark.parametrize("config", [Config(), UNUSUAL, AWKWARD])
def test_toml_has_one_setting_a_line_in_the_order_of_the_sections(config: Config) -> None:
    lines = toml_from_config(config).split("\n")
    names = [line.partition(" = ")[0] for line in lines if line]
    expected = [name for name, value in config.to_dict().items() if not isinstance(value, dict)]
    for section, settings in config.to_dict().items():
        if isinstance(settings, dict):
            expected += [f"[{section}]", *settings]
    assert names == expected


def test_an_array_is_written_on_its_line() -> None:
    assert '\ntargets = ["Awe", "Schreck, groß"]\n' in toml_from_config(UNUSUAL)
    assert "\nlambdas = [1.0, 2.0, 1e-09]\n" in toml_from_config(UNUSUAL)


def test_a_number_that_is_not_finite_is_read_back() -> None:
    assert (
        tomllib.loads(toml_from_config(Config(checkpoint_minutes=math.inf)))["checkpoint_minutes"] == math.inf
    )


FLOATS = [key for key, value in flat_settings(Config().to_dict()).items() if isinstance(value, float)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
@pytest.mark.parametrize("key", FLOATS)
def test_only_the_time_between_checkpoints_may_be_infinite(key: str, value: float) -> None:
    document = merged({}, {key: value})
    if (key, value) == ("checkpoint_minutes", math.inf):
        assert config_from_dict(document, source="my.toml").checkpoint_minutes == math.inf
    else:
        assert key in refused(document)


OF_OLD = r"""seed = 7
checkpoint_minutes = inf

[data]
dir = "/a\tb\u007f\\\"\u001f \u00df"
targets = ["Awe", "a]\n[b]", "\"\"\""]

[ruwl]
lambdas = [1.0, 1.0, 1e-08]

[optim]
eps = 5e-324
"""


def test_a_config_of_the_writer_before_tomli_w_reads_as_it_did(tmp_path: Path) -> None:
    """It wrote text as JSON does: with escapes, a tab as one too."""
    (tmp_path / "config.toml").write_text(OF_OLD, encoding="utf-8")
    assert config_from_toml(tmp_path / "config.toml") == Config(
        seed=7,
        checkpoint_minutes=math.inf,
        data=DataConfig(dir='/a\tb\x7f\\"\x1f \u00df', targets=("Awe", "a]\n[b]", '"""')),
        ruwl=RuwlConfig(lambdas=(1, 1, 1e-8)),
        optim=OptimConfig(eps=5e-324),
    )


def test_the_unusual_config_differs_from_the_default_everywhere() -> None:
    """Or the round trip above could drop a setting unseen."""
    parts = {name: value for name, value in vars(Config()).items() if dataclasses.is_dataclass(value)}
    settings = {f"{name}.{item.name}" for name, part in parts.items() for item in dataclasses.fields(part)}
    settings |= vars(Config()).keys() - parts.keys()
    same = {"frontend.sampling_rate", "frontend.n_fft", "frontend.n_mels", "frontend.f_min", "frontend.f_max"}
    same |= {"frontend.power_floor", "frontend.frames"}
    same |= {"model.method", "ruwl.mode"}  # others would make settings beside them be without effect
    assert differences(Config(), UNUSUAL).keys() == settings - same


def test_an_empty_document_is_the_paper() -> None:
    config = config_from_dict({}, source="flags")
    assert (config.model.method, config.optim.lr, config.optim.eps, config.optim.weight_decay) == (
        "rrtn-ruwl",
        1e-3,
        1e-8,
        0.01,
    )
    assert (config.loss.off_diagonal, config.ruwl.lambdas, config.ruwl.c) == (
        0.001,
        (1, 1, 1e-8),
        (1, 1, 0.01),
    )
    assert (config.optim.schedule, config.optim.warmup_epochs, config.head.activation) == (
        "constant",
        0,
        "sigmoid",
    )
    assert (config.projector.layers, config.projector.units) == (1, 2048)
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
        ({"ruwl": {"c": [1, 1, "x"]}}, ("my.toml", "ruwl.c = 'x'", "int | float")),
        ({"tensorboard": 1}, ("my.toml", "tensorboard = 1", "expected bool")),
        ({"loss": {"ruwl_c": [1, 1, 1]}}, ("my.toml", "unknown: loss.ruwl_c", "off_diagonal")),
        ({"model": {"encoder": 18}}, ("my.toml", "model.encoder = 18", "str")),
    ],
)
def test_unknown_keys_and_wrong_types_are_named_with_their_section(
    document: dict[str, Any], named: tuple[str, ...]
) -> None:
    message = refused(document)
    assert [part for part in named if part not in message] == []


@pytest.mark.parametrize(
    ("document", "flag"),
    [
        (
            {"model": {"encoder": "vgg"}},
            "--encoder (model.encoder) | 'vgg' | expected one of resnet18, cnn10, cnn14",
        ),
        (
            {"model": {"method": "twins"}},
            "--method (model.method) | 'twins' | expected one of vanilla, rrtn, rrtn-ruwl",
        ),
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
        (
            {"precision": "fp8"},
            "--precision (precision) | 'fp8' | expected one of auto, fp32, tf32, bf16, fp16",
        ),
        (
            {"compile": "yes"},
            "--compile (compile) | 'yes' | expected one of auto, off, default, reduce-overhead, max-autotune",
        ),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes | 0.0 | expected more than 0"),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes | nan | expected more than 0"),
        ({"head": {"activation": "relu"}}, "head.activation | 'relu' | expected one of sigmoid, linear"),
        ({"projector": {"layers": 0}}, "projector.layers | 0 | expected at least 1"),
        ({"projector": {"units": 1}}, "projector.units | 1 | expected at least 2"),
        ({"optim": {"schedule": "step"}}, "optim.schedule | 'step' | expected one of constant, cosine"),
        ({"optim": {"warmup_epochs": -1}}, "optim.warmup_epochs | -1"),
        ({"optim": {"warmup_epochs": 3, "epochs": 2}}, "optim.warmup_epochs | 3.0 of 2 epochs"),
        ({"eval": {"crop": "random"}}, "eval.crop | 'random' | expected one of clip, full"),
        ({"ruwl": {"mode": "free"}}, "ruwl.mode | 'free' | expected one of learned, fixed"),
        ({"ruwl": {"lr": -0.1}}, "ruwl.lr | -0.1 | expected at least 0"),
        ({"ruwl": {"c": [1, 0, 1]}}, "expected three numbers each"),
        ({"ruwl": {"c": [1, float("nan"), 1]}}, "expected three numbers each"),
        ({"ruwl": {"c": [1, float("inf"), 1]}}, "expected three numbers each"),
        ({"ruwl": {"lambdas": [1, 1]}}, "expected three numbers each"),
        ({"ruwl": {"lambdas": [1, -1, 1]}}, "expected three numbers each"),
        ({"ruwl": {"lambdas": [1, 1, float("nan")]}}, "expected three numbers each"),
        ({"data": {"classes": ["T=a", "T=b", "T=a"]}}, "data.classes | 'T=a' more than once | expected each"),
        ({"loss": {"off_diagonal": -5}}, "loss.off_diagonal | -5.0 | expected at least 0"),
        ({"optim": {"eps": math.inf}}, "optim.eps | inf | expected a finite number"),
        ({"augment": {"time_width": 0}}, "augment.time_width | 0 | expected at least 1"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_that_the_user_wrote(document: dict[str, Any], flag: str) -> None:
    assert flag in refused(document)


VANILLA, RRTN = {"model": {"method": "vanilla"}}, {"model": {"method": "rrtn"}}
FIXED = {"ruwl": {"mode": "fixed"}}


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (VANILLA, "projector.layers", 3),
        (VANILLA, "projector.units", 512),
        (VANILLA, "loss.off_diagonal", 0.005),
        (VANILLA, "ruwl.mode", "fixed"),
        (VANILLA, "ruwl.lambdas", [1, 1, 1]),
        (VANILLA, "ruwl.c", [1, 1, 1]),
        (VANILLA, "ruwl.lr", 0.5),
        (VANILLA, "augment.time_width", 32),
        (VANILLA, "augment.freq_stripes", 1),
        (RRTN, "ruwl.mode", "fixed"),
        (RRTN, "ruwl.lr", 0.5),
        (FIXED, "ruwl.lr", 0.5),
    ],
)
def test_a_setting_without_effect_is_refused_and_its_default_is_not(
    settings: dict[str, Any], key: str, value: Any
) -> None:
    default = functools.reduce(lambda part, name: part[name], key.split("."), Config().to_dict())
    config_from_dict(merged(settings, {key: default}), source="my.toml")
    message = refused(merged(settings, {key: value}))
    assert message.startswith(f"{key} = ")
    chosen = "ruwl.mode fixed" if settings == FIXED else f"method {settings['model']['method']}"
    assert f"has no effect with {chosen} | leave it out" in message


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (RRTN, "ruwl.c", [1, 1, 1]),  # rrtn's weights are lambda / c^2
        (RRTN, "ruwl.lambdas", [1, 1, 1]),
        (RRTN, "projector.layers", 3),
        (RRTN, "augment.time_width", 32),
        (FIXED, "ruwl.c", [1, 1, 1]),
        ({}, "ruwl.lr", 0.5),
        (VANILLA, "head.activation", "linear"),
        (VANILLA, "optim.schedule", "cosine"),
        (VANILLA, "frontend.pad", "zero_db"),
    ],
)
def test_a_setting_with_effect_is_taken(settings: dict[str, Any], key: str, value: Any) -> None:
    changed = config_from_dict(merged(settings, {key: value}), source="my.toml")
    assert differences(config_from_dict(settings, source="my.toml"), changed).keys() == {key}


@pytest.mark.parametrize("settings", [VANILLA, RRTN, FIXED])
def test_the_whole_config_of_every_method_is_read_back(settings: dict[str, Any], tmp_path: Path) -> None:
    """It lists settings that have no effect, all at their defaults."""
    config = config_from_dict(settings, source="my.toml")
    (tmp_path / "config.toml").write_text(toml_from_config(config), encoding="utf-8")
    assert config_from_toml(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"seed = ", "expected TOML"), (b"\xff\xfe", "expected TOML"), (None, "No such file")],
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
    assert result == {
        "seed": 1,
        "optim": {"lr": 0.5, "epochs": 3},
        "model": {"encoder": "cnn10"},
        "device": "cpu",
    }
    assert document == {"seed": 1, "optim": {"lr": 0.1, "epochs": 3}}


def test_a_flag_over_what_should_be_a_section_is_refused_by_name() -> None:
    assert "optim = 3" in refused(merged({"optim": 3}, {"optim.lr": 0.1}))


def test_differences_name_each_setting_with_both_values() -> None:
    changed = dataclasses.replace(Config(), seed=2, optim=OptimConfig(lr=0.1))
    assert differences(Config(), changed) == {"seed": "seed: 0 -> 2", "optim.lr": "optim.lr: 0.001 -> 0.1"}
    assert differences(UNUSUAL, dataclasses.replace(UNUSUAL)) == {}


ALLOWED = {
    "device": "cpu",
    "compile": "default",
    "checkpoint_minutes": 1.0,
    "tensorboard": True,
    "data.dir": "/moved",
    "data.csv": "/moved.csv",
    "data.audio": "/sounds",
    "optim.epochs": 90,
}


def test_a_resumed_run_may_change_where_and_how_long_it_runs() -> None:
    old = config_from_dict({"optim": {"epochs": 60}}, source="flags")
    new = config_from_dict(merged(old.to_dict(), ALLOWED), source="flags")
    assert changes_on_resume(old, new) == list(differences(old, new).values())
    assert differences(old, new).keys() == ALLOWED.keys()
    assert changes_on_resume(old, old) == []


@pytest.mark.parametrize("key", sorted(differences(Config(), UNUSUAL).keys() - ALLOWED.keys()))
def test_a_resumed_run_may_change_nothing_else(key: str) -> None:
    value = functools.reduce(lambda part, name: part[name], key.split("."), UNUSUAL.to_dict())
    new = config_from_dict(merged(Config().to_dict(), {key: value}), source="flags")
    with pytest.raises(
        ConfigError, match=rf"^--resume \| other settings than the run's: {key}: .* -> .* \| start a new run"
    ):
        changes_on_resume(Config(), new)


@pytest.mark.parametrize(("key", "value"), [("model.method", "rrtn"), ("ruwl.mode", "fixed")])
def test_a_resumed_run_keeps_its_method(key: str, value: str) -> None:
    new = config_from_dict(merged(Config().to_dict(), {key: value}), source="flags")
    with pytest.raises(ConfigError, match=key):
        changes_on_resume(Config(), new)


def test_a_cosine_ends_where_it_was_planned_to() -> None:
    """Other epochs would be another learning rate at every step."""
    old = config_from_dict({"optim": {"epochs": 60, "schedule": "cosine"}}, source="flags")
    new = config_from_dict({"optim": {"epochs": 90, "schedule": "cosine"}}, source="flags")
    with pytest.raises(ConfigError, match=r"optim\.epochs: 60 -> 90"):
        changes_on_resume(old, new)


def test_what_is_refused_is_listed_without_what_is_allowed() -> None:
    new = config_from_dict({"seed": 1, "device": "cpu", "optim": {"lr": 0.5, "epochs": 3}}, source="flags")
    with pytest.raises(ConfigError) as caught:
        changes_on_resume(Config(), new)
    assert caught.value.came == "other settings than the run's: seed: 0 -> 1; optim.lr: 0.001 -> 0.5"


def test_method_md_has_every_decision_of_the_method_with_its_settings_and_their_defaults() -> None:
    """Sixteen rows are numbered; what stands in the fourth column as `name = value` is TOML."""
    page = (Path(__file__).parents[2] / "docs/method.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    decisions = [row for row in rows if len(row) == 5 and (row[3] == "-" or " = " in row[3])]
    assert [int(row[0]) for row in decisions if row[0]] == list(range(1, 17))
    written = [setting for row in decisions for setting in re.findall(r"`([a-z_.]+ = [^`]+)`", row[3])]
    defaults = flat_settings(Config().to_dict())
    for setting in written:
        assert flat_settings(tomllib.loads(setting)).items() <= defaults.items(), setting
    named = {setting.split(" = ")[0] for setting in written}
    of_the_method = {
        name
        for name in defaults
        if name.split(".")[0] in {"head", "projector", "loss", "ruwl", "augment", "eval"}
    }
    assert of_the_method <= named
    assert {f"frontend.{field.name}" for field in dataclasses.fields(FrontendSpec)} - named == {
        "frontend.sampling_rate"
    }


def test_n11_a_target_that_stands_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'Awe' more than once"):
        config_from_dict({"data": {"targets": ["Awe", "Fear", "Awe"]}}, source="my.toml")


@pytest.mark.parametrize(
    ("class_targets", "classes"),
    [(["Type"], []), (["Type"], ["Type=a"]), (["Type"], ["Type=a", "Type=b", "Sex=m"]), ([], ["Type=a"])],
)
def test_classes_that_are_not_those_of_the_class_targets_are_refused(
    class_targets: list[str], classes: list[str]
) -> None:
    """Where they are needed: settings of a run that has not begun leave them open."""
    data = DataConfig(targets=("Awe",), class_targets=tuple(class_targets), classes=tuple(classes))
    with pytest.raises(ConfigError, match=r"data\.classes .* NAME=CLASS"):
        _ = data.columns
    named = DataConfig(targets=("Awe",), class_targets=("Type",), classes=("Type=a", "Type=b"))
    assert named.columns.labels == ("Awe", "Type=a", "Type=b")
