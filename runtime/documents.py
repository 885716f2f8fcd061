"""JSON that comes from a file, checked once, at the door.

Behind the door each field has the type and the range that its form states. Fields that a form does not
know are ignored: newer writers may add them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

_DEEPEST: Final = 32  # levels of nesting; ours have 5
_MOST_BYTES: Final = 1 << 28
_DIGEST: Final = "digest"


def parsed(content: bytes | str) -> Any:
    """The document in JSON text. Raises ValueError with one line.

    No name stands twice in an object, no number is infinite or NaN, and nothing is nested deeply.
    """
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes of JSON")
    try:
        document = json.loads(
            content, object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(document)
    return document


def converted(document: object, form: type[T]) -> T:
    """A parsed document in the types of a form. Raises ValueError, which names the field."""
    try:
        return msgspec.convert(document, form)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def with_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document, and a hash of it as its field `digest`."""
    content = {name: value for name, value in document.items() if name != _DIGEST}
    return {**content, _DIGEST: _digest(content)}


def check_digest(document: Mapping[str, Any]) -> None:
    """Raises ValueError where a field was changed since `with_digest`. Older documents have no digest."""
    if _DIGEST in document and document != with_digest(document):
        raise ValueError("its content has another hash than it says: it was changed")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return fields


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")
