"""The names that a setting takes, for help texts.

They are read from the source of train/, because importing it would import torch, which takes
seconds, and which a machine that only scores does not have.
"""

import re
from pathlib import Path
from typing import Final

_TRAIN: Final = Path(__file__).parents[1] / "train"


def _names(variable: str, *, module: str) -> tuple[str, ...]:
    """The quoted names in `variable = ...` at the top level of a module, in their order."""
    path = _TRAIN / module
    if not path.is_file():  # a program that was frozen without its sources
        return ("see the documentation",)
    source = path.read_text(encoding="utf-8")
    value = re.search(rf"^{variable}\b[^=]*=(.+?)^\S", source, flags=re.MULTILINE | re.DOTALL)
    assert value
    return tuple(re.findall(r'"([a-z0-9-]+)"', value[1]))


ENCODERS: Final = _names("ENCODERS", module="method/encoders.py")
METHODS: Final = _names("Method", module="config.py")
