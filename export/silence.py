"""The rows of a graph that the silence behind a recording leaves to compute.

A recording that is shorter than the model's input is followed by silence. In a convolutional network a row
of a map that no sound reaches is the same row as in a clip of silence alone, so that it is known beforehand.
A graph can take the frames with sound only. At a few tensors, its joints, it keeps the rows that differ from
silence, and puts known rows behind them, as many as the nodes up to the next joint read. Those between two
joints stay what they were. Every row that counts is computed by the same operators from the same numbers: in
int8 the scores are equal to the last bit.

`winograd/rewriting.py` writes such graphs. B batch, C channels, T frames of a whole clip, t of those that are
given, M mels. The rows of a map [B, C, rows, columns] are steps in time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime.arrays import Int64
from ..runtime.backends.ort_session import session_from_bytes
from .onnx_nodes import attributes_of, shapes_of, types_of

_TIME: Final = 2  # the axis of rows
_DIMENSIONS: Final = 4  # of a map
_FEWEST_WINDOWS: Final = 2  # between two joints whose maps have as many rows
# Rows are computed one by one, each from the row of its own place.
_ROW_BY_ROW: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Relu", "Add", "BatchNormalization", "Transpose"}
)
_WINDOWED: Final = frozenset({"Conv", "MaxPool", "AveragePool"})


class Reach(NamedTuple):
    """Which rows a node reads: tile i of its output needs `size` rows from i * step + begin on."""

    size: int
    step: int
    begin: int  # less than 0 with padding
    outputs: int = 1  # rows of a tile, which are computed together: all of them from all that it reads

    def reached(self, rows: Int64) -> Int64:
        """Rows of the output that differ from silence, if by a rounding, where `rows` of the input do."""
        return -(-(rows - self.begin) // self.step) * self.outputs

    def read(self, rows: Int64) -> Int64:
        """Rows of the input that the first `rows` of the output need."""
        tiles = -(-rows // self.outputs)
        return (tiles - 1) * self.step + self.begin + self.size


@dataclass(frozen=True)
class _Joint:
    """A tensor that everything behind it is computed from."""

    name: str
    node: int  # the number of the node that makes it; -1 for the input
    rows: int


@dataclass(frozen=True)
class Joints:
    """The joints of a graph, from its input on, and the rows of each for every number of given frames."""

    names: tuple[str, ...]
    kept: Int64  # [T + 1, joints]: the rows that differ from silence
    wanted: Int64  # [T + 1, joints]: these with the known ones behind

    def blank_maps(self, model: onnx.ModelProto) -> dict[str, Any]:
        """[1, C, rows, columns] of each, of zeros. `model` is that of `joints_of`."""
        types = types_of(model)
        return {
            name: np.zeros(
                [1, *(size.dim_value for size in types[name].shape.dim[1:])],
                helper.tensor_dtype_to_np_dtype(types[name].elem_type),
            )
            for name in self.names
        }

    def silent_maps(self, model: onnx.ModelProto, silence: float) -> dict[str, Any]:
        """The same of a clip of silence, in dB, by the operators of `model`, of which they are outputs."""
        session = session_from_bytes(model.SerializeToString(), "silence", "cpu", threads=1)
        clip = np.full([1, *session.get_inputs()[0].shape[1:]], silence, np.float32)
        found = session.run(list(self.names[1:]), {self.names[0]: clip})
        return dict(zip(self.names, [clip, *found], strict=True))


def joints_of(model: onnx.ModelProto, tiles: Mapping[str, Reach]) -> Joints | None:
    """`model` takes log_mel [B, 1, T, M]. None where rows are mixed in another way than by a window at once.

    What comes behind the first operator that does so is computed for all T. `tiles` are convolutions that
    compute in tiles, by the names of their weights.
    """
    maps = _Maps(model, tiles)
    joints = list(_joints(maps))
    if len(joints) == 1:
        return None
    return Joints(tuple(joint.name for joint in joints), *_rows_at(maps, joints))


class KnownRows:
    """Writes the nodes that put known rows behind joints, and their constants."""

    def __init__(self, joints: Joints, silent: Mapping[str, Any]) -> None:
        """`silent` has the shapes of what `Joints.silent_maps` gives."""
        self._joints, self.silent = joints, silent
        self.known: dict[str, str] = {}  # of joints: the names of their known rows
        self._bounds = [f"silence_bound_{i}" for i in range(2 * len(joints.names))]
        numbers = {
            "of_frames": np.stack([joints.kept, joints.wanted], 2).reshape(len(joints.kept), -1),
            "first": np.array([0]),
            "axis": np.array([_TIME]),
            "ones": np.ones(_DIMENSIONS - 1, np.int64),
        }
        self.constants = {
            f"silence_{name}": numpy_helper.from_array(value, f"silence_{name}")
            for name, value in numbers.items()
        }

    def opening(self) -> list[onnx.NodeProto]:
        """What reads how many frames are given."""
        given = self._joints.names[0]
        return [
            _node("Shape", [given], "silence_given", start=_TIME, end=_TIME + 1),
            _node("Shape", [given], "silence_batch", start=0, end=1),
            _node("Concat", ["silence_batch", "silence_ones"], "silence_shape", axis=0),
            _node("Gather", ["silence_of_frames", "silence_given"], "silence_row", axis=0),
            _node("Squeeze", ["silence_row", "silence_first"], "silence_bounds"),
            helper.make_node("Split", ["silence_bounds"], self._bounds, num_outputs=len(self._bounds)),
        ]

    def bounds(self, name: str) -> tuple[str, str]:
        """The names of tensors [1]: how many rows of a joint are kept, and how many are wanted."""
        i = self._joints.names.index(name)
        return self._bounds[2 * i], self._bounds[2 * i + 1]

    def behind(self, name: str) -> list[onnx.NodeProto]:
        """-> `name`_whole: a joint's first rows, and the known ones behind, in each clip of the batch."""
        kept, wanted = self.bounds(name)
        known = self.known[name] = f"{name}_silence"
        self.constants[name] = numpy_helper.from_array(self.silent[name], known)
        return [
            _node("Slice", [name, "silence_first", kept, "silence_axis"], f"{name}_kept"),
            _node("Slice", [known, kept, wanted, "silence_axis"], f"{name}_known"),
            _node("Expand", [f"{name}_known", "silence_shape"], f"{name}_rest"),
            _node("Concat", [f"{name}_kept", f"{name}_rest"], f"{name}_whole", axis=_TIME),
        ]


class _Maps:
    """The nodes between a model's input and its scores, in their order, and the maps that they make."""

    def __init__(self, model: onnx.ModelProto, tiles: Mapping[str, Reach]) -> None:
        self.tiles = tiles
        constants = {one.name: tuple(one.dims) for one in model.graph.initializer}
        self.shapes = shapes_of(model) | constants
        self.input = model.graph.input[0].name
        self.made = {self.input}
        self.nodes = []
        for node in model.graph.node:  # those of weights alone are left out
            if self.made.intersection(node.input):
                self.made.update(node.output)
                self.nodes.append(node)

    def rows(self, name: str) -> int:
        """Rows of a map, when all frames are given."""
        return int(self.shapes[name][_TIME])

    def keeps_rows(self, node: onnx.NodeProto) -> bool:
        """Whether rows of its output depend on rows of its inputs by windows alone."""
        is_map = len(self.shapes.get(node.output[0], ())) == _DIMENSIONS
        if not is_map or len(node.output) != 1:
            return False
        attributes = attributes_of(node)
        if node.op_type == "Transpose":
            return bool(attributes["perm"][_TIME] == _TIME)
        if node.op_type in _WINDOWED:
            plain = {"dilations": 1, "auto_pad": b"NOTSET", "ceil_mode": 0}
            return all(
                np.all(np.atleast_1d(attributes.get(name, usual)) == usual) for name, usual in plain.items()
            )
        if node.op_type not in _ROW_BY_ROW:
            return False
        maps = {self.rows(name) for name in node.input if name in self.made}
        constants = [self.shapes.get(name, ()) for name in node.input if name not in self.made]
        of_each_row = any(shape[_TIME - _DIMENSIONS] > 1 for shape in constants if len(shape) > 1)
        return len(maps) == 1 and not of_each_row

    def window(self, node: onnx.NodeProto) -> Reach | None:
        """None for a node that computes row by row."""
        if node.op_type not in _WINDOWED:
            return None
        if node.op_type == "Conv" and node.input[1] in self.tiles:
            return self.tiles[node.input[1]]
        attributes = attributes_of(node)
        size = attributes["kernel_shape"] if "kernel_shape" in attributes else self.shapes[node.input[1]][2:]
        return Reach(int(size[0]), _stride(node), -int(attributes.get("pads", [0])[0]))

    def next_window(self, name: str) -> onnx.NodeProto | None:
        """The first node with a window that reads a map; nodes row by row may lie between."""
        for node in self.nodes:
            if name in node.input and self.keeps_rows(node):
                return node if node.op_type in _WINDOWED else self.next_window(node.output[0])
        return None

    def reached(self, between: Sequence[onnx.NodeProto], start: str, rows: Int64) -> dict[str, Int64]:
        """Rows of each map that differ from silence, where the first `rows` of the map `start` do."""
        found = {start: rows}
        for node in between:
            inputs = np.maximum.reduce([found[name] for name in node.input if name in found])
            window = self.window(node)
            after = window.reached(inputs) if window else inputs
            found[node.output[0]] = np.minimum(after, self.rows(node.output[0]))
        return found

    def read(self, between: Sequence[onnx.NodeProto], end: str, rows: Int64) -> dict[str, Int64]:
        """Rows of each map that the first `rows` of the map `end` are computed from."""
        found = {end: rows}
        for node in reversed(between):
            after = found[node.output[0]]
            window = self.window(node)
            before = window.read(after) if window else after
            for name in self.made.intersection(node.input):
                here = np.minimum(before, self.rows(name))
                found[name] = np.maximum(found.get(name, here), here)
        return found


def _joints(maps: _Maps) -> Iterator[_Joint]:
    """The input; the first tensor behind it after each change of the number of rows, and some between.

    A pooling in channels last wants the convolution right before it, so that there is no joint between them.
    The last joint is the last tensor before other operators.
    """
    latest = _Joint(maps.input, -1, maps.rows(maps.input))
    yield latest
    last = latest
    for joint in _only_ones(maps):
        last = joint
        if maps.nodes[joint.node].op_type == "DequantizeLinear" or _is_rounded_next(maps, joint.name):
            continue
        window = maps.next_window(joint.name)
        if window is None or window.op_type == "MaxPool":
            continue
        windows = sum(node.op_type in _WINDOWED for node in maps.nodes[latest.node + 1 : joint.node + 1])
        if joint.rows == latest.rows and (windows < _FEWEST_WINDOWS or _stride(window) > 1):
            continue
        yield joint
        latest = joint
    if last.node > latest.node:
        yield _before_dequantising(maps, last)


def _only_ones(maps: _Maps) -> Iterator[_Joint]:
    """The tensors that everything behind them is computed from, up to the first node of another kind."""
    last_use = {name: i for i, node in enumerate(maps.nodes) for name in node.input}
    alive = {maps.input}
    for i, node in enumerate(maps.nodes):
        if not maps.keeps_rows(node):
            return
        alive = {name for name in (*alive, *node.output) if last_use.get(name, -1) > i}
        if len(alive) == 1:
            (name,) = alive
            yield _Joint(name, i, maps.rows(name))


def _is_rounded_next(maps: _Maps, name: str) -> bool:
    """Whether the same tensor in 8 bits follows: a quarter of the bytes."""
    readers = [node for node in maps.nodes if name in node.input]
    return len(readers) == 1 and readers[0].op_type in {"QuantizeLinear", "Relu"}


def _before_dequantising(maps: _Maps, joint: _Joint) -> _Joint:
    """A joint in 8 bits, before its DequantizeLinear where it has one."""
    node = maps.nodes[joint.node]
    if node.op_type != "DequantizeLinear":
        return joint
    return _Joint(node.input[0], joint.node - 1, joint.rows)


def _rows_at(maps: _Maps, joints: Sequence[_Joint]) -> tuple[Int64, Int64]:
    """The rows that are kept at each joint, and these with the known ones behind: both [T + 1, joints].

    There is a row for each number of given frames, 0 to T.
    """
    frames = np.arange(joints[0].rows + 1)
    kept, wanted = [frames], []
    for before, joint in pairwise(joints):
        between = maps.nodes[before.node + 1 : joint.node + 1]
        kept.append(maps.reached(between, before.name, kept[-1])[joint.name])
        wanted.append(maps.read(between, joint.name, kept[-1])[before.name])
    wanted.append(np.full_like(frames, joints[-1].rows))
    return np.stack(kept, 1), np.maximum(np.stack(wanted, 1), np.stack(kept, 1))


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)  # type: ignore[arg-type]


def _stride(node: onnx.NodeProto) -> int:
    return int(attributes_of(node).get("strides", [1])[0])
