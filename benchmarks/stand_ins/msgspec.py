"""In the place of msgspec on a GPU machine that lacks it: documents are taken as they are, unchecked.

The suite reads only what it has written itself.
"""

from typing import Any


class ValidationError(ValueError):
    """Never raised here."""


class Meta:
    """A constraint that is not checked."""

    def __init__(self, **_: object) -> None:
        pass

    def __hash__(self) -> int:
        return 0


def convert(document: Any, _: object) -> Any:
    """The document itself."""
    return document
