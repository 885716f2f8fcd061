"""The `metadata_props` of an ONNX file, read without the onnx package and without running the model.

Only the top level of the protobuf message is walked; the graph is skipped by its length
(onnx.proto: ModelProto.metadata_props = 14, StringStringEntryProto.key = 1, .value = 2).
"""

from collections.abc import Iterator

from .errors import ModelError

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def onnx_metadata(model: bytes) -> dict[str, str]:
    """{key: value} of a serialised ModelProto. Raises ModelError where the bytes are not one."""
    try:
        entries = [dict(_fields(entry)) for number, entry in _fields(memoryview(model)) if number == _METADATA_PROPS]
        return {bytes(entry[_KEY]).decode(): bytes(entry[_VALUE]).decode() for entry in entries}
    except (IndexError, KeyError, ValueError) as error:
        raise ModelError(f"ONNX | {error} | expected a serialised ONNX model | export it again") from error


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, content) of every length-delimited field."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, position = _varint(message, position)
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("cut off")
            yield number, message[position : position + length]
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"not a protobuf message at byte {position}")
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
            raise ValueError("not a protobuf message")
