"""Every setting of a training run: one dataclass a part, saved whole as the run's config.toml."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from ..runtime.errors import ConfigError
from ..runtime.spec import FrontendSpec
from .encoders import EncoderName
from .views import AugmentConfig

Method = Literal["vanilla", "rrtn", "rrtn-ruwl"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    dir: str = ""  # --data: a folder in the Hume-VB layout; empty for the built-in corpus
    targets: tuple[str, ...] = ()  # --targets; empty for every numeric column that is not metadata

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained."""

    encoder: EncoderName = "resnet18"  # --encoder
    method: Method = "rrtn-ruwl"  # --method: vanilla (CCC), rrtn (fixed weights), rrtn-ruwl (restrained uncertainty)

    def __post_init__(self) -> None:
        _check_choice("--encoder (model.encoder)", self.encoder, get_args(EncoderName))
        _check_choice("--method (model.method)", self.method, get_args(Method))


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Constants of Eqs. 2, 5 and 6; terms in the order ccc, ccc_a, bt."""

    off_diagonal: float = 0.001  # lambda of Eq. 2
    ruwl_lambda: tuple[float, float, float] = (1.0, 1.0, 1e-8)
    ruwl_c: tuple[float, float, float] = (1.0, 1.0, 0.01)  # where c starts; method rrtn keeps lambda / c^2 of it

    def __post_init__(self) -> None:
        object.__setattr__(self, "ruwl_lambda", tuple(map(float, self.ruwl_lambda)))
        object.__setattr__(self, "ruwl_c", tuple(map(float, self.ruwl_c)))
        if len(self.ruwl_lambda) != 3 or len(self.ruwl_c) != 3 or not all(0 < abs(c) < math.inf for c in self.ruwl_c):
            raise ConfigError("loss.ruwl_lambda, loss.ruwl_c | expected three numbers each, no c of 0, infinity or NaN")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, as the paper sets it."""

    epochs: int = 0  # --epochs; 0 is 60, as in the paper, and 5 on the built-in corpus
    batch_size: int = 0  # --batch-size; 0 is 128, as in the paper, and less where an epoch would have under 10 steps
    lr: float = 1e-3  # --lr
    ruwl_lr: float = 1e-3  # of RUWL's c, which has no weight decay
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_least("--epochs (optim.epochs)", self.epochs, 0)
        _check_least("--batch-size (optim.batch_size)", self.batch_size, 0)
        if self.batch_size == 1:
            raise ConfigError("--batch-size (optim.batch_size) | 1 | CCC and Barlow Twins need at least 2 clips")
        if not 0 < self.lr < 10:
            raise ConfigError(f"--lr (optim.lr) | {self.lr} | expected more than 0, usually about 0.001")
        for name in ("ruwl_lr", "eps", "weight_decay"):
            _check_least(f"optim.{name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    seed: int = 0  # --seed
    device: DeviceName = "auto"  # --device
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    frontend: FrontendSpec = field(default_factory=FrontendSpec)

    def __post_init__(self) -> None:
        _check_least("--seed (seed)", self.seed, 0)
        if self.seed >= 2**63:
            raise ConfigError(f"--seed (seed) | {self.seed} | expected less than 2^63")
        _check_choice("--device (device)", self.device, get_args(DeviceName))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for TOML and JSON."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """The text of config.toml."""
        return tomli_w.dumps(self.to_dict())


def config_from_dict(document: Mapping[str, Any], *, source: str) -> Config:
    """Sections and keys as in config.toml. Raises ConfigError naming an unknown key or a value of the wrong type."""
    config: Config = _from_dict(Config, document, source=source, prefix="")
    return config


def config_from_toml(path: Path) -> Config:
    """Reads a config.toml. Raises ConfigError."""
    return config_from_dict(read_toml(path), source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The document, or a ConfigError with the place of the mistake."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} | {error.strerror} | expected a TOML file of settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} | {error} | expected TOML") from error


def merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` {"optim.lr": 0.01} laid over a nested document; None means not given."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for dotted, value in overrides.items():
        if value is None:
            continue
        section, _, key = dotted.rpartition(".")
        target = result.setdefault(section, {}) if section else result
        if isinstance(target, dict):  # else `section` is no section: config_from_dict refuses it by name
            target[key] = value
    return result


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for each setting that differs."""
    a, b = _flat(old.to_dict()), _flat(new.to_dict())
    return [f"{key}: {a[key]!r} -> {b[key]!r}" for key in a if a[key] != b[key]]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _from_dict(kind: Any, document: Mapping[str, Any], *, source: str, prefix: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(kind)}
    if unknown := [prefix + key for key in document if key not in fields]:
        raise ConfigError(f"{source} | unknown: {', '.join(unknown)} | known here: {', '.join(fields)}")
    values = {key: _value(_default(fields[key]), value, source=source, key=prefix + key) for key, value in document.items()}
    try:
        return kind(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{source} | {error}") from error


def _value(default: Any, value: object, *, source: str, key: str) -> Any:
    """A setting of the type that its default has; a section becomes its dataclass."""
    if isinstance(default, tuple):
        item = default[0] if default else ""  # the empty default is of names
        return tuple(
            _value(item, part, source=source, key=key) for part in _checked(value, list | tuple, source=source, key=key)
        )
    if isinstance(default, float):
        return float(_checked(value, int | float, source=source, key=key))
    if dataclasses.is_dataclass(default):
        section = _checked(value, Mapping, source=source, key=key)
        return _from_dict(type(default), section, source=source, prefix=f"{key}.")
    return _checked(value, type(default), source=source, key=key)


def _default(item: "dataclasses.Field[Any]") -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _checked(value: Any, expected: Any, *, source: str, key: str) -> Any:
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise ConfigError(f"{source} | {key} = {value!r} | expected {name}")
    return value


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} | {value!r} | expected one of {', '.join(choices)}")


def _check_least(name: str, value: float, least: int) -> None:
    if not value >= least:  # NaN is not, either
        raise ConfigError(f"{name} | {value} | expected at least {least}")
