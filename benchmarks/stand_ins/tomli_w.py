"""In the place of tomli_w on a GPU machine that lacks it: a run's settings as TOML, one a line."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def dumps(document: Mapping[str, Any], *, indent: int = 0) -> str:
    """Numbers, texts, lists of them, and one level of sections. JSON's texts are TOML's."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    sections = {name: value for name, value in document.items() if isinstance(value, Mapping)}
    for name in document.keys() - sections.keys():
        yield f"{name} = {json.dumps(document[name])}"
    for name, section in sections.items():
        yield f"[{name}]"
        yield from _lines(section)
