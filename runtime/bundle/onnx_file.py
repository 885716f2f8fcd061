"""What an ONNX file holds, read from its bytes.

This needs no onnx package, runs nothing and copies no tensor: only protobuf's headers are read, and
everything else is skipped by its length. The field numbers are those of onnx.proto.
"""

import hashlib
import mmap
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from ..errors import ModelError
from ..system.files import open_regular

SEAL_KEY: Final = "rrtn.sha256"  # of the last metadata entry, the hash of every byte before it
NEWEST_OPSET: Final = 26  # ONNX Runtime 1.31 knows it, the oldest that rrtn takes
_STANDARD: Final = (memoryview(b""), memoryview(b"ai.onnx"))  # two names of the same domain
# The one operator of ONNX Runtime's own that a file of ours may hold: that of the variant cpu-int8.
OF_ONNX_RUNTIME: Final = "com.microsoft"  # the domain of the operators that its packages hold
INT8_PRODUCT: Final = "MatMulIntegerToFloat"
_OUR_DOMAIN, _OUR_OPERATOR = (memoryview(name.encode()) for name in (OF_ONNX_RUNTIME, INT8_PRODUCT))
_MAX_FIELDS: Final = 1_000_000  # in a whole file; ours have some 1,500
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_OP_TYPE, _NODE_DOMAIN = 4, 7
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2

# Message -> {field: the message in it}, for all messages that can hold a node or a tensor.
_PARTS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}

Field = tuple[int, int | memoryview]  # (number, an integer or the bytes of a string or message)


def onnx_metadata(model: bytes, name: str = "ONNX") -> dict[str, str]:
    """`metadata_props` as {key: value}. Raises ModelError where the bytes are no protobuf message."""
    try:
        return _metadata(memoryview(model))
    except (IndexError, ValueError) as error:
        raise _broken(name, error) from error


def onnx_metadata_of_file(path: Path) -> dict[str, str]:
    """`onnx_metadata` of a file, of which few pages are read. {} where there is none, or it is no ONNX."""
    try:
        with open_regular(path) as file:
            return _metadata(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, IndexError, ValueError):  # ValueError: also an empty file
        return {}


def _metadata(model: memoryview) -> dict[str, str]:
    properties = (value for number, value in _fields(model) if number == _METADATA_PROPS)
    entries = [_contents(_fields(value)) for value in properties if isinstance(value, memoryview)]
    keys = [bytes(entry.get(_KEY, b"")).decode() for entry in entries]
    named = [key for key in keys if key != SEAL_KEY]  # a model that is changed and sealed again has two seals
    if len(set(named)) < len(named):  # one reader would take the first, another the last
        raise ValueError("two metadata entries of one key")
    return {key: bytes(entry.get(_VALUE, b"")).decode() for key, entry in zip(keys, entries, strict=True)}


def check_onnx(model: bytes, name: str) -> None:
    """Raises ModelError where a tensor lies in another file, or an operator or opset is not standard.

    To be called before any runtime sees the bytes: a tensor elsewhere may be any file of this machine,
    or its memory. `name` is what the error names.
    """
    try:
        reason = next(filter(None, (_refusal(kind, fields) for kind, fields in _messages(model))), "")
    except (IndexError, ValueError) as error:
        raise _broken(name, error) from error
    if reason:
        raise ModelError(
            name,
            reason,
            wanted="standard operators with their weights inside",
            fix="export the model with rrtn export",
        )


def sealed(model: bytes) -> bytes:
    """The model with a seal: one more metadata entry at its end, with the hash of every byte before."""
    return model + _seal(hashlib.sha256(model).hexdigest())


def check_seal(model: bytes, name: str) -> str:
    """The sha256 of the whole file.

    Raises ModelError where the seal is missing, or the file was changed after it was sealed.
    """
    size = len(_seal("0" * 64))
    content = hashlib.sha256(memoryview(model)[:-size])
    if model[-size:] != _seal(digest := content.hexdigest()):
        raise ModelError(
            name,
            f"sha256 {digest[:12]}",
            wanted="the sha256 in the file's seal",
            fix="the file was changed or cut off: export its run again",
        )
    content.update(model[-size:])
    return content.hexdigest()


def _seal(digest: str) -> bytes:
    return _field(_METADATA_PROPS, _field(_KEY, SEAL_KEY.encode()) + _field(_VALUE, digest.encode()))


def _field(number: int, content: bytes) -> bytes:
    assert number < 16 and len(content) < 128  # so that each takes one byte
    return bytes([number << 3 | _BYTES, len(content)]) + content


def _broken(name: str, error: Exception) -> ModelError:
    wanted = "a whole ONNX file, or a bundle's folder"
    return ModelError(name, f"not ONNX, or cut off: {error}", wanted=wanted, fix="export its run again")


def _is_foreign(fields: list[Field]) -> bool:
    """True for a node that is neither a standard operator nor the one of ONNX Runtime that we use."""
    domains = [value for number, value in fields if number == _NODE_DOMAIN and value not in _STANDARD]
    operators = [value for number, value in fields if number == _OP_TYPE]
    used = all(domain == _OUR_DOMAIN for domain in domains) and operators == [_OUR_OPERATOR]
    return bool(domains) and not used


def _refusal(kind: str, fields: list[Field]) -> str:
    """Why a message must not be loaded; "" where it may. Where a field stands twice, each is checked."""
    match kind:
        case "tensor" if any(_is_elsewhere(*field) for field in fields):
            return f"tensor {_text(fields, _TENSOR_NAME)} has its data in another file"
        case "node" if _is_foreign(fields):
            return f"operator {_text(fields, _OP_TYPE)} of the domain {_text(fields, _NODE_DOMAIN)}"
        case "opset" if _contents(fields).get(_OPSET_DOMAIN, b"") in _STANDARD:
            return _opset_refusal(fields)
    return ""


def _is_elsewhere(number: int, value: int | memoryview) -> bool:
    """Whether a tensor's field says that its data lie in another file."""
    return number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bool(value))


def _opset_refusal(fields: list[Field]) -> str:
    versions = [value for number, value in fields if number == _OPSET_VERSION and isinstance(value, int)]
    versions = versions or [0]  # protobuf leaves out a 0
    if all(1 <= version <= NEWEST_OPSET for version in versions):
        return ""
    return f"opset {versions[-1]}, where this rrtn knows 1 to {NEWEST_OPSET}"


def _text(fields: list[Field], number: int) -> str:
    """A name for a message: it may have any bytes and any length."""
    return repr(bytes(_contents(fields).get(number, b"")[:60]).decode(errors="replace"))


def _contents(fields: Iterable[Field]) -> dict[int, memoryview]:
    return {number: value for number, value in fields if isinstance(value, memoryview)}


def _messages(model: bytes) -> Iterator[tuple[str, list[Field]]]:
    """Every message of _PARTS with its fields, without recursion: a file may be nested to any depth."""
    waiting = [("model", memoryview(model))]
    left = _MAX_FIELDS
    while waiting:
        kind, message = waiting.pop()
        fields = list(islice(_fields(message), left + 1))
        left -= len(fields)
        if left < 0:
            raise ValueError(f"more than {_MAX_FIELDS:,} fields")
        parts = _PARTS[kind]
        waiting += [
            (parts[number], value)
            for number, value in fields
            if number in parts and isinstance(value, memoryview)
        ]
        yield kind, fields


def _fields(message: memoryview) -> Iterator[Field]:
    """Every field but those of fixed width, which in ONNX are floats only."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:  # readers in C++ drop the upper bits, and take it for another field
            raise ValueError(f"no protobuf field has the number {number}")
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"no protobuf message at byte {position}")
        if position + length > len(message):
            raise ValueError("cut off")
        if wire == _BYTES:
            yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("no protobuf message")
