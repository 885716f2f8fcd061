"""Files that were damaged: JSON documents with a part that is another one, and bytes that are others."""

import copy
import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 255, 10**9, 10**30, -(10**30), 0.0, 0.5, -0.5, 1e-9, 1e300),
    *(
        "",
        "x",
        "fp32",
        "logmel",
        "waveform",
        "onnx",
        "..",
        "../x",
        "/etc/passwd",
        "a\0b",
        "\x1b[31m",
        "a" * 5000,
    ),
    *("\ud800", "[bold]", "=1+1", [], {}, [[]], [{}], {"": None}, [None], ["Awe", "Awe"], [0] * 300),
)
LITERALS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"[" * 5000,
    b'{"a":' * 2000,
    b"\xff\xfe",
    b"",
)


def mutated_json(document: Any, rng: random.Random) -> bytes:
    """The document with one fault of a random kind at a random place."""
    if rng.random() < 0.3:
        return mutated_bytes(json.dumps(document, indent=2).encode(), rng)
    document = copy.deepcopy(document)
    places = list(_places(document))
    parent, key = rng.choice(places)
    content = rng.choice((_replaced, _replaced, _neighbour, _removed, _renamed, _repeated, _swapped, _nested))
    content(parent, key, rng)
    text = json.dumps(document, indent=2).encode()
    if rng.random() < 0.1:  # what json.dumps does not write
        at = rng.choice([i for i, byte in enumerate(text) if byte in b":,["])
        text = text[: at + 1] + rng.choice(LITERALS) + text[at + 1 + rng.randrange(12) :]
    return text


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: bits, bytes, what is cut out, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(changed) or 1)
        length = rng.choice((1, 1, 2, 5, 40))
        match rng.randrange(6):
            case 0 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] or b","
            case 4:
                changed[at:at] = rng.choice(
                    (b",", b'"', b"\n", b"\r", b";", b"\0", b"0", b"-", b"_", b" ", b"\t")
                )
            case 5 if rng.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def _places(document: Any) -> Any:
    """Every (parent, key) of a document."""
    waiting = [document]
    while waiting:
        parent = waiting.pop()
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        for key in keys:
            yield parent, key
            if isinstance(parent[key], dict | list):
                waiting.append(parent[key])


def _replaced(parent: Any, key: Any, rng: random.Random) -> None:
    parent[key] = rng.choice(VALUES)


def _neighbour(parent: Any, key: Any, rng: random.Random) -> None:
    """A value of the same type: the fault that no type shows."""
    value = parent[key]
    if isinstance(value, bool):
        parent[key] = not value
    elif isinstance(value, int | float):
        parent[key] = rng.choice((value + 1, value - 1, value * 2, value / 2, -value, value * 1000))
    elif isinstance(value, str) and value:
        at = rng.randrange(len(value))
        parent[key] = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    elif isinstance(value, list):
        value.reverse()
    else:
        parent[key] = rng.choice(VALUES)


def _removed(parent: Any, key: Any, rng: random.Random) -> None:
    del parent[key]


def _renamed(parent: Any, key: Any, rng: random.Random) -> None:
    if isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    else:
        parent.append(parent[key])


def _repeated(parent: Any, key: Any, rng: random.Random) -> None:
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent["new field"] = copy.deepcopy(parent[key])


def _swapped(parent: Any, key: Any, rng: random.Random) -> None:
    other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]


def _nested(parent: Any, key: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 40, 400))):
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
