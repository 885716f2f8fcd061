"""Our reader finds in a file what the onnx package finds there, and refuses what is no ONNX file.

What must be refused in a whole file is in tests/faults/test_export_faults.py: E6 and E8.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import Message
from onnx import NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, helper
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
    assert check_seal(sealed(unsealed), "tiny.onnx") == hashlib.sha256(sealed(unsealed)).hexdigest()
    changed = [sealed(unsealed)[:-1] + other for other in (b"/", b"g")]  # below any digit, and above
    for broken in (b"", unsealed, sealed(unsealed) + unsealed, sealed(unsealed)[1:], *changed):
        found = hashlib.sha256(broken[: -len(sealed(b""))]).hexdigest()[:12]
        with pytest.raises(ModelError, match=rf"^tiny\.onnx \| sha256 {found} \| .*seal"):
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
    check_onnx(b"\x08\x01" * 1_000_000, "flat.onnx")
    with pytest.raises(ModelError, match=r"^flat\.onnx \| not ONNX, or cut off: more than 1,000,000 fields"):
        check_onnx(b"\x08\x01" * 1_000_001, "flat.onnx")


# --- what a model may not hold, in each place where onnx.proto has room for it ---

Steps = tuple[str, ...]  # the names of the fields that lead from one message to another


def steps_to_each_place() -> list[tuple[Steps, str]]:
    """For each field of onnx.proto in which a node, a tensor or an opset can lie, at any depth: the steps
    from a model through this field to the nearest of these, and its message's name.
    """
    fields = []  # (the message that has it, its name, the message in it)
    way = {"ModelProto": ()}  # message -> steps from a model to it
    waiting = [onnx.ModelProto.DESCRIPTOR]
    for message in waiting:
        for field in message.fields:
            if inner := field.message_type:
                fields.append((message.name, field.name, inner.name))
                if inner.name not in way:
                    way[inner.name] = (*way[message.name], field.name)
                    waiting.append(inner)
    ends = {name: ((), name) for name in UNWANTED}  # message -> steps from it to the nearest of these
    for _ in waiting:
        for message, name, inner in fields:
            if inner in ends and message not in ends:
                steps, end = ends[inner]
                ends[message] = ((name, *steps), end)
    return [
        ((*way[message], name, *ends[inner][0]), ends[inner][1])
        for message, name, inner in fields
        if inner in ends
    ]


def model_with(steps: Steps, content: Message) -> bytes:
    model = message = onnx.ModelProto()
    for name in steps:
        inner = getattr(message, name)
        message = inner.add() if hasattr(inner, "add") else inner
    message.CopyFrom(content)
    return bytes(model.SerializeToString())


ELSEWHERE = [StringStringEntryProto(key="location", value="weights")]
UNWANTED: dict[str, list[tuple[Message, str]]] = {
    "TensorProto": [
        (TensorProto(name="w", data_location=TensorProto.EXTERNAL), r"tensor 'w' has its data in another"),
        (TensorProto(name="w", external_data=ELSEWHERE), r"tensor 'w' has its data in another file"),
        (TensorProto(name="w" * 99, external_data=ELSEWHERE), rf"tensor '{'w' * 60}' has"),
    ],
    "NodeProto": [
        (NodeProto(op_type="Foo", domain="me"), r"operator 'Foo' of the domain 'me'"),
        (NodeProto(op_type="MatMulIntegerToFloat", domain="me"), r"operator 'MatMul\w+' of the domain 'me'"),
        (NodeProto(op_type="Gelu", domain="com.microsoft"), r"operator 'Gelu' of the domain 'com\.m"),
        (NodeProto(op_type="Abs", domain="com.microsoft"), r"operator 'Abs' of the domain 'com\.m"),
    ],
    "OperatorSetIdProto": [
        (OperatorSetIdProto(domain="", version=NEWEST_OPSET + 1), rf"opset {NEWEST_OPSET + 1}, where"),
        (OperatorSetIdProto(domain="ai.onnx", version=99), r"opset 99, where this rrtn knows 1 to "),
        (OperatorSetIdProto(domain="", version=0), r"opset 0, where"),
        (OperatorSetIdProto(domain=""), r"opset 0, where"),
        (OperatorSetIdProto(domain="", version=-1), r"opset 18446744073709551615, where"),
    ],
}
HARMLESS: dict[str, list[Message]] = {
    "TensorProto": [
        TensorProto(data_location=TensorProto.DEFAULT),
        TensorProto(
            dims=[1],
            data_type=TensorProto.FLOAT,
            segment=TensorProto.Segment(begin=1, end=2),
            float_data=[1],
            int32_data=[1],
            string_data=[b"w"],
            int64_data=[1],
            name="w",
            doc_string="w",
            raw_data=b"w",
            double_data=[1],
            uint64_data=[1],
            metadata_props=ELSEWHERE,
        ),
    ],
    "NodeProto": [
        *(NodeProto(op_type="Foo", domain=domain) for domain in ("", "ai.onnx")),
        NodeProto(op_type="MatMulIntegerToFloat", domain="com.microsoft", input=["x"], name="me"),
        NodeProto(
            input=["x"],
            output=["y"],
            name="me",
            op_type="Foo",
            overload="me",
            doc_string="me",
            metadata_props=ELSEWHERE,
        ),
    ],
    "OperatorSetIdProto": [
        *(
            OperatorSetIdProto(domain=domain, version=version)
            for domain in ("", "ai.onnx")
            for version in (1, NEWEST_OPSET)
        ),
        *(OperatorSetIdProto(domain="me", version=version) for version in (0, 99)),
    ],
}


@pytest.mark.parametrize(
    ("steps", "end"), [pytest.param(*place, id=".".join(place[0])) for place in steps_to_each_place()]
)
def test_what_is_not_wanted_is_found_in_every_place_of_a_model(steps: Steps, end: str) -> None:
    for content, reason in UNWANTED[end]:
        with pytest.raises(ModelError, match=rf"^the\.onnx \| {reason}"):
            check_onnx(model_with(steps, content), "the.onnx")
    for content in HARMLESS[end]:
        check_onnx(model_with(steps, content), "the.onnx")


# --- protobuf ---


def test_of_two_metadata_entries_of_one_key_neither_is_taken(tiny_model: Path) -> None:
    """The onnx package's users take the last, others the first. Only the seal may be there twice."""
    entry = b"\x72\x06\x0a\x01k\x12\x01v"
    assert onnx_metadata(entry + entry.replace(b"k", b"l")) == {"k": "v", "l": "v"}
    with pytest.raises(ModelError, match="two metadata entries of one key"):
        onnx_metadata(entry + entry)
    with pytest.raises(ModelError, match="two metadata entries of one key"):
        onnx_metadata(sealed(sealed(entry) + entry))
    assert onnx_metadata(sealed(sealed(entry))).keys() == {"k", SEAL_KEY}


FIXED = {1: b"\xff" * 8, 5: b"\xff" * 4}  # wire type -> a field's content


@pytest.mark.parametrize("wire", FIXED)
def test_fields_of_fixed_width_are_skipped_and_none_may_be_cut_off(wire: int) -> None:
    field = bytes([14 << 3 | wire]) + FIXED[wire]  # the number of the metadata, which are strings
    entry = b"\x72\x06\x0a\x01k\x12\x01v"
    assert onnx_metadata(field + entry) == onnx_metadata(entry + field) == {"k": "v"}
    for length in range(1, len(field)):
        with pytest.raises(ModelError, match="not ONNX, or cut off"):
            onnx_metadata(entry + field[:length])


@pytest.mark.parametrize("number", [0, 1, 2**28, 2**29 - 1, 2**29, 2**29 + 1, 2**32 + 1])
def test_the_numbers_that_a_field_may_have_are_protobufs(number: int) -> None:
    field = _header(number << 3 | 2, 1) + b"a"
    if 0 < number < 2**29:
        assert onnx_metadata(field) == {}
        onnx.load_from_string(field)
    else:
        with pytest.raises(ModelError, match=f"no protobuf field has the number {number}$|number {number} "):
            onnx_metadata(field)


@pytest.mark.parametrize(("size", "is_right"), [(1, True), (9, True), (10, True), (11, False)])
def test_an_integer_has_ten_bytes_at_most_as_in_protobuf(size: int, is_right: bool) -> None:
    content = b"\x08" + b"\x80" * (size - 1) + b"\x01"
    if is_right:
        assert onnx_metadata(content) == {}
    else:
        with pytest.raises(ModelError, match="no protobuf message"):
            onnx_metadata(content)


def _header(tag: int, length: int) -> bytes:
    return _varint(tag) + _varint(length)


def _varint(value: int) -> bytes:
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
