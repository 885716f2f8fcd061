"""The ten emotions of Hume-VB, and the order in which its challenges take them."""

from collections.abc import Sequence
from typing import Final

EMOTIONS: Final = (
    "Awe",
    "Excitement",
    "Amusement",
    "Awkwardness",
    "Fear",
    "Horror",
    "Distress",
    "Triumph",
    "Sadness",
    "Surprise",
)


def in_order_of_submission(names: Sequence[str]) -> tuple[str, ...]:
    """The ten emotions in the challenge's order, whatever that of the data; other labels as they are."""
    return EMOTIONS if set(names) == set(EMOTIONS) else tuple(names)
