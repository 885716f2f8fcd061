"""What settings of the method may be. No torch: settings are checked before it is imported, for seconds."""

from dataclasses import dataclass
from typing import Final, Literal

from ...runtime.errors import ConfigError

# In this order help texts and error messages name them; the classes are in encoders.py.
ENCODER_NAMES: Final = ("resnet18", "cnn10", "cnn14")
EncoderName = str  # one of ENCODER_NAMES; ModelConfig refuses others
Activation = Literal["sigmoid", "linear"]
# The paper's terms of the loss, in this order: CCC of the clean and of the masked view, Barlow Twins.
TERMS: Final = ("l_ccc", "l_ccc_a", "l_bt")
CLASS_TERM: Final = "l_ce"  # behind them, where there are classes: cross-entropy, the mean over the views


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """SpecAugment: stripes that are masked in the second view (paper)."""

    time_width: int = 64  # frames; a stripe's width is uniform in 0 .. time_width - 1
    time_stripes: int = 2
    freq_width: int = 8  # mel bins, likewise
    freq_stripes: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(
                    f"augment.{name}", str(value), wanted="at least 1", fix="a width of 1 masks nothing"
                )
