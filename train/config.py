"""Every setting of a training run, one dataclass a section. A run keeps all of them in its config.toml.

The comment of a field is its text in docs/settings.md.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, get_args

from ..runtime.bundle import repeated
from ..runtime.errors import ConfigError
from ..runtime.spec import FrontendSpec
from ..runtime.text import short
from .method.choices import CLASS_TERM, ENCODER_NAMES, TERMS, Activation, AugmentConfig, EncoderName
from .method.columns import Columns, columns_of_settings, scale_choice
from .method.tasks import TASK_NAMES, TaskName
from .sections import default_of, flat_settings, plain_settings, settings_from_document

if TYPE_CHECKING:
    from .method.weighting import Weighting

Method = Literal["vanilla", "rrtn", "rrtn-ruwl"]
METHODS: Final = get_args(Method)
TrainingDevice = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
CompileMode = Literal["auto", "off", "default", "reduce-overhead", "max-autotune"]
COMPILE_MODES: Final = get_args(CompileMode)
RuwlMode = Literal["learned", "fixed"]
Schedule = Literal["constant", "cosine"]
Crop = Literal["clip", "full"]

_SEEDS: Final = 2**63
# Settings that are written only where they are used: a reader that does not know one refuses its name.
_WRITTEN_WHERE_USED: Final = frozenset(
    {"scale", "class_targets", "classes", "task"}
    | {"csv", "audio", "file_column", "split_column", "speaker_column", "fold"}
)
LOSO: Final = "loso"  # folds: each speaker is one
ALL_FOLDS: Final = 0  # in place of a fold's number
_FEWEST_FOLDS: Final = 2
_MOST_LAYERS, _MOST_UNITS = 16, 65_536  # of a projector; the Barlow Twins paper goes to 3 and 16,384


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data that the network learns from."""

    dir: str = ""  # --data: a folder in the Hume-VB layout; empty for the built-in corpus
    targets: tuple[str, ...] = ()  # --targets; empty for every numeric column that is not metadata
    # --scale on which people rated: "1:9", "Valence=-1:1" for one target, or "auto"; empty for 0 to 1
    scale: tuple[str, ...] = ()
    class_targets: tuple[str, ...] = ()  # --class-target: columns with a class for each clip
    classes: tuple[str, ...] = ()  # "Type=Laugh" for each class in its order; empty for those of Train
    # --task: a challenge's, which sets targets, scales, metric and the form of a submission
    task: TaskName = ""
    channel: int = 0  # --channel of each file, 1 is the first; 0 for the mean of all
    fraction: float = 1.0  # --fraction of the training clips, by whole speakers whom the seed draws
    csv: str = ""  # --csv: the table, where it is not data_info.csv in the folder
    audio: str = ""  # --audio: the folder of the recordings, where it is not wav/ in the folder
    file_column: str = ""  # --file-column, where its name is none of the usual ones
    split_column: str = ""  # --split-column, the same
    speaker_column: str = ""  # --speaker-column, the same
    fold: str = ""  # of rrtn crossval: 2/5 validates on the second of five, 2/loso on the second speaker

    def __post_init__(self) -> None:
        for name in ("targets", "scale", "class_targets", "classes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        scale_choice(self.scale)
        _check_choice("--task (data.task)", self.task, TASK_NAMES)
        self._check_places()
        _check_least("--channel (data.channel)", self.channel, 0)
        if problem := repeated(self.targets):
            raise ConfigError("--targets (data.targets)", problem, wanted="each target once")
        if problem := repeated(self.class_targets):
            raise ConfigError("--class-target (data.class_targets)", problem, wanted="each column once")
        if problem := repeated(self.classes):
            raise ConfigError("data.classes", problem, wanted="each class once")
        if not 0 < self.fraction <= 1:
            raise ConfigError(
                "--fraction (data.fraction)", str(self.fraction), wanted="more than 0, at most 1"
            )

    def _check_places(self) -> None:
        if self.csv and not self.dir:
            object.__setattr__(self, "dir", str(Path(self.csv).parent))
        if self.audio and not self.dir:
            came, fix = "without --data and --csv", "name the table: --csv FILE"
            raise ConfigError("--audio (data.audio)", came, fix=fix)
        if self.fold:
            fold_of_text(self.fold)

    @property
    def columns(self) -> Columns:
        """The columns of the scores, once a plan has filled the settings in."""
        return columns_of_settings(self.targets, self.scale, self.class_targets, self.classes)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and its method of training."""

    encoder: EncoderName = "resnet18"  # --encoder
    # --method: vanilla (CCC), rrtn (fixed weights), rrtn-ruwl (restrained uncertainty)
    method: Method = "rrtn-ruwl"
    init: str = ""  # --init: a PANNs checkpoint that the encoder starts from

    def __post_init__(self) -> None:
        _check_choice("--encoder (model.encoder)", self.encoder, ENCODER_NAMES)
        _check_choice("--method (model.method)", self.method, METHODS)

    @property
    def has_second_view(self) -> bool:
        """Whether training has masked views and a projector; vanilla has neither."""
        return self.method != "vanilla"


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """From embedding to scores: one Linear, then an activation."""

    activation: Activation = "sigmoid"  # the ratings are in 0 to 1; linear leaves the range open

    def __post_init__(self) -> None:
        _check_choice("head.activation", self.activation, get_args(Activation))


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """From embedding to what the Barlow Twins loss compares; dropped at export."""

    layers: int = 1  # Linear layers, with BatchNorm and ReLU between them as in the Barlow Twins reference
    units: int = 2048  # of each layer

    def __post_init__(self) -> None:
        _check_least("projector.layers", self.layers, 1)
        _check_least("projector.units", self.units, 2)
        if self.layers > _MOST_LAYERS or self.units > _MOST_UNITS:
            raise ConfigError(
                "projector.layers, projector.units",
                f"{self.layers}, {self.units}",
                wanted=f"at most {_MOST_LAYERS} layers of {_MOST_UNITS:,} units",
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Constants of the Barlow Twins loss."""

    off_diagonal: float = 0.001  # lambda of Eq. 2

    def __post_init__(self) -> None:
        _check_least("loss.off_diagonal", self.off_diagonal, 0)


@dataclass(frozen=True, kw_only=True)
class RuwlConfig:
    """Restrained uncertainty weights of the loss's three terms (Eqs. 5 and 6)."""

    # fixed: c stays where it starts, as in the authors' scripts (docs/method.md, point 2)
    mode: RuwlMode = "learned"
    lambdas: tuple[float, float, float] = (1.0, 1.0, 1e-8)
    # where c starts; method rrtn weighs with lambda / c^2 of it
    c: tuple[float, float, float] = (1.0, 1.0, 0.01)
    lr: float = 1e-3  # of c, which has no weight decay, warm-up or schedule

    def __post_init__(self) -> None:
        object.__setattr__(self, "lambdas", tuple(map(float, self.lambdas)))
        object.__setattr__(self, "c", tuple(map(float, self.c)))
        finite = all(map(math.isfinite, self.lambdas + self.c))
        if (
            not len(self.lambdas) == len(self.c) == len(TERMS)
            or not finite
            or min(self.lambdas) < 0
            or 0 in self.c
        ):
            raise ConfigError(
                "ruwl.lambdas, ruwl.c",
                f"{list(self.lambdas)}, {list(self.c)}",
                wanted="three numbers each, no lambda under 0 and no c of 0",
            )
        _check_choice("ruwl.mode", self.mode, get_args(RuwlMode))
        _check_least("ruwl.lr", self.lr, 0)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, as the paper sets it."""

    epochs: int = 0  # --epochs; 0 is 60, as in the paper, and 5 on the built-in corpus
    # --batch-size, over all GPUs; 0 is 128, as in the paper, and less where that is under 10 steps
    batch_size: int = 0
    lr: float = 1e-3  # --lr
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: Schedule = "constant"  # cosine: falls over all steps, and would be 0 one step after the last
    warmup_epochs: float = 0.0  # the learning rate rises linearly over so many epochs first

    def __post_init__(self) -> None:
        _check_least("--epochs (optim.epochs)", self.epochs, 0)
        _check_least("--batch-size (optim.batch_size)", self.batch_size, 0)
        if self.batch_size == 1:
            wanted = "at least 2: the losses compare clips"
            raise ConfigError("--batch-size (optim.batch_size)", "1", wanted=wanted)
        if not 0 < self.lr < 10:
            wanted = "more than 0 and less than 10, usually about 0.001"
            raise ConfigError("--lr (optim.lr)", str(self.lr), wanted=wanted)
        for name in ("eps", "weight_decay", "warmup_epochs"):
            _check_least(f"optim.{name}", getattr(self, name), 0)
        if self.epochs and self.warmup_epochs > self.epochs:
            came = f"{self.warmup_epochs} of {self.epochs} epochs"
            raise ConfigError("optim.warmup_epochs", came, wanted="no more than there are epochs")
        _check_choice("optim.schedule", self.schedule, get_args(Schedule))


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How the network sees validation clips."""

    # the first 250 frames, as every exported model; full: whole recordings, as the authors may have, which
    # no exported model hears
    crop: Crop = "clip"

    def __post_init__(self) -> None:
        _check_choice("eval.crop", self.crop, get_args(Crop))


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    seed: int = 0  # --seed
    device: TrainingDevice = "auto"  # --device
    # --precision of the two passes: bf16 on a GPU that has it, fp16 on one that has that alone, else fp32
    precision: Precision = "auto"
    # --compile: auto is default on one GPU, and off on CPUs, with several processes and on the built-in
    # corpus; the others are modes of torch.compile, of which reduce-overhead takes CUDA graphs
    compile: CompileMode = "auto"
    # the longest time between two checkpoints; there is one at each epoch's end, too
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False  # --tensorboard: event files in the run's folder
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    ruwl: RuwlConfig = field(default_factory=RuwlConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    frontend: FrontendSpec = field(default_factory=FrontendSpec)

    def __post_init__(self) -> None:
        _check_least("--seed (seed)", self.seed, 0)
        if self.seed >= _SEEDS:
            raise ConfigError("--seed (seed)", str(self.seed), wanted="less than 2^63")
        _check_choice("--device (device)", self.device, get_args(TrainingDevice))
        _check_choice("--precision (precision)", self.precision, get_args(Precision))
        _check_choice("--compile (compile)", self.compile, COMPILE_MODES)
        if not self.checkpoint_minutes > 0:
            raise ConfigError("checkpoint_minutes", str(self.checkpoint_minutes), wanted="more than 0")
        self._check_finite()
        self._check_effects()

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile makes the step. It does not where `auto` is still open."""
        return self.compile not in ("auto", "off")

    def _check_finite(self) -> None:
        """Refuses what no arithmetic survives; checkpoint_minutes = inf is at each epoch's end alone."""
        for key, value in flat_settings(self.to_dict()).items():
            if isinstance(value, float) and not math.isfinite(value) and key != "checkpoint_minutes":
                raise ConfigError(key, str(value), wanted="a finite number")

    def _check_effects(self) -> None:
        """Refuses a setting that cannot take effect: nobody would notice the mistake."""
        chosen, without_effect = self._without_effect()
        mine, defaults = flat_settings(self.to_dict()), flat_settings(_defaults())
        for key, value in mine.items():
            if value != defaults.get(key) and any(
                f"{key}.".startswith(f"{name}.") for name in without_effect
            ):
                raise ConfigError(f"{key} = {value!r}", f"has no effect with {chosen}", fix="leave it out")

    def _without_effect(self) -> tuple[str, tuple[str, ...]]:
        """The choice that decides, and the sections and settings that have no effect with it."""
        method = self.model.method
        match method:
            case "vanilla":
                return f"method {method}", ("projector", "loss", "ruwl", "augment")
            case "rrtn":
                return f"method {method}", ("ruwl.mode", "ruwl.lr")
            case "rrtn-ruwl" if self.ruwl.mode == "fixed":
                return "ruwl.mode fixed", ("ruwl.lr",)
        return f"method {method}", ()

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as they come back from TOML and JSON."""
        document: dict[str, Any] = plain_settings(self, where_used=_WRITTEN_WHERE_USED)
        return document


def terms_of_config(config: Config) -> tuple[str, ...]:
    """The terms of the loss, in their order: the paper's, and cross-entropy where there are classes.

    Where there are classes alone, no CCC.
    """
    rated = TERMS if config.data.targets or not config.data.class_targets else TERMS[-1:]
    return (*rated, *([CLASS_TERM] if config.data.class_targets else []))


def weighting_from_config(config: Config) -> "Weighting":
    """How `method` weighs the terms of the loss. A new method is a name in `Method` and a case here."""
    from .method.weighting import FixedWeights, RuwlWeights  # not above: settings are checked without torch

    ruwl, terms = config.ruwl, terms_of_config(config)
    lambdas, c = (
        [dict(zip(TERMS, values, strict=True)).get(term, 1.0) for term in terms]
        for values in (ruwl.lambdas, ruwl.c)
    )
    match config.model.method:
        case "vanilla":  # CCC and cross-entropy of the clean view alone
            seen = [float(term in (TERMS[0], CLASS_TERM)) for term in terms]
            return FixedWeights(lambdas=seen, c=c)
        case "rrtn":  # where RUWL starts
            return FixedWeights(lambdas=lambdas, c=c)
        case "rrtn-ruwl":
            learned = ruwl.mode == "learned"
            return RuwlWeights(lambdas=lambdas, c=c, learned=learned, lr=ruwl.lr, restraint=len(terms) - 1)
        case unknown:
            assert_never(unknown)


@functools.lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return {
        item.name: plain_settings(default_of(item), where_used=_WRITTEN_WHERE_USED)
        for item in dataclasses.fields(Config)
    }


def config_from_dict(document: Mapping[str, Any], *, source: str) -> Config:
    """A Config from sections and keys as in config.toml; settings that are left out have their defaults.

    `source` is where the document comes from. Raises ConfigError with the name of an unknown key, or
    of a setting with a wrong value.
    """
    return settings_from_document(Config, document, source=source)


def fold_of_text(text: str) -> tuple[int, str]:
    """2/5 -> 2, "5"; 2/loso -> 2, "loso"; all/5 -> ALL_FOLDS, "5". Raises ConfigError."""
    which, _, folds = text.partition("/")
    is_count = folds.isascii() and folds.isdigit() and int(folds) >= _FEWEST_FOLDS
    number = int(which) if which.isascii() and which.isdigit() else ALL_FOLDS
    is_known = which == "all" or number >= 1
    if not is_known or not (folds == LOSO or (is_count and number <= int(folds))):
        raise ConfigError("data.fold", short(text), wanted=f"such as 2/5 or 2/{LOSO}")
    return number, folds


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(name, short(value), wanted=f"one of {', '.join(choices)}")


def _check_least(name: str, value: float, least: int) -> None:
    if not value >= least:  # NaN is not, either
        raise ConfigError(name, str(value), wanted=f"at least {least}")
