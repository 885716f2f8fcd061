"""Our reader finds in a file what the onnx package finds there, and refuses what is no ONNX file.

What must be refused in a whole file is in tests/faults/test_export_faults.py: E6 and E8.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from rrtn.runtime.bundle.onnx_file import (
    NEWEST_OPSET,
    SEAL_KEY,
    check_onnx,
    check_seal,
    onnx_metadata,
    sealed,
)
from rrtn.runtime.errors import ModelError


def with_metadata(model: Path, properties: dict[str, str]) -> bytes:
    proto = onnx.load(model)
    helper.set_model_props(proto, properties)
    return bytes(proto.SerializeToString())


def test_metadata_are_those_that_the_onnx_package_reads(tiny_model: Path) -> None:
    properties = {
        "rrtn": "x" * 300,
        "": "empty key",
        "empty value": "",
        "\u00e9\N{GRINNING FACE}": "\u00fc\n",
    }
    assert onnx_metadata(with_metadata(tiny_model, properties)) == properties
    assert onnx_metadata(b"") == {}


def test_a_missing_key_or_value_is_empty_as_protobuf_says() -> None:
    entries = b"\x72\x03\x0a\x01k" + b"\x72\x03\x12\x01v"
    proto = onnx.load_from_string(entries)
    assert (
        onnx_metadata(entries)
        == {entry.key: entry.value for entry in proto.metadata_props}
        == {"k": "", "": "v"}
    )


def test_metadata_are_found_behind_fields_of_every_wire_type(tiny_model: Path) -> None:
    """Fields 100 (varint), 101 (64 bits), 102 (bytes) and 103 (32 bits), which a later ONNX may add."""
    content = tiny_model.read_bytes()
    unknown = b"\xa0\x06\xff\x01" + b"\xa9\x06" + b"8" * 8 + b"\xb2\x06\x03abc" + b"\xbd\x06" + b"4" * 4
    assert onnx_metadata(unknown + content + unknown) == onnx_metadata(content)
    check_onnx(unknown + content + unknown, "tiny.onnx")


def test_a_model_cut_anywhere_is_refused_or_lacks_metadata(tiny_model: Path) -> None:
    content = tiny_model.read_bytes()
    whole = onnx_metadata(content)
    unsealed = {key: value for key, value in whole.items() if key != SEAL_KEY}
    for length in range(len(content)):
        try:
            assert onnx_metadata(content[:length]) in ({}, unsealed)
        except ModelError as error:
            assert "ONNX" in str(error)


def test_random_bytes_are_refused_never_a_crash() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3_000):
        try:
            onnx_metadata(rng.bytes(rng.integers(1, 80)))
        except ModelError:
            refused += 1
    assert refused > 2_500


def test_a_seal_is_metadata_to_others_and_leaves_the_model_alone(tiny_model: Path) -> None:
    unsealed = with_metadata(tiny_model, {"author": "someone"})
    proto = onnx.load_from_string(sealed(unsealed))
    assert [entry.key for entry in proto.metadata_props] == ["author", SEAL_KEY]
    del proto.metadata_props[1]
    assert proto.SerializeToString() == unsealed
    check_seal(sealed(unsealed), "tiny.onnx")
    check_seal(sealed(sealed(unsealed)), "tiny.onnx")
    for broken in (b"", unsealed, sealed(unsealed) + unsealed, sealed(unsealed)[1:]):
        with pytest.raises(ModelError, match=r"^tiny\.onnx \| .*seal"):
            check_seal(broken, "tiny.onnx")


def test_the_newest_opset_is_one_that_onnx_runtime_takes() -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "scores")
    ]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["x"], ["scores"])], "sigmoid", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", NEWEST_OPSET)], ir_version=10)
    check_onnx(model.SerializeToString(), "sigmoid.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[0.5] * 4]


def test_nesting_of_any_depth_is_walked_in_little_time() -> None:
    """Graph in attribute in node in graph, 9,000 levels: the walk is linear and does not recurse."""
    content = b"\x0a\x09" + b"\x22\x03Foo" + b"\x3a\x02me"  # graph.node with an op_type and a domain
    for level in range(9_000):
        field = (0x32, 0x2A, 0x0A)[level % 3]  # attribute.g, node.attribute, graph.node
        content = _header(field, len(content)) + content
    with pytest.raises(ModelError, match=r"^deep\.onnx \| operator 'Foo' of the domain 'me'"):
        check_onnx(_header(0x3A, len(content)) + content, "deep.onnx")


def test_a_file_of_countless_fields_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^flat\.onnx \| not ONNX, or cut off: more than 1,000,000 fields"):
        check_onnx(b"\x08\x01" * 2_000_000, "flat.onnx")


def _header(tag: int, length: int) -> bytes:
    digits = [tag]
    while length >= 0x80:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*digits, length])
