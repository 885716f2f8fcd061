"""Nodes and constants of a graph, as they are written, and whole numbers that the graph computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...runtime.arrays import Int64


class GraphWriter:
    """What is written so far. Each method returns the name of the tensor that it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._numbers: dict[tuple[object, ...], str] = {}

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"slots_{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        name = f"slots_{len(self.constants)}_{name}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _computed(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of whole numbers: the same of the same is written once."""
        key = (operator, inputs, *sorted(attributes.items()))
        if key not in self._numbers:
            self._numbers[key] = self._node(operator, *inputs, **attributes)
        return self._numbers[key]

    def _number(self, name: str, values: Sequence[int] | Int64) -> str:
        """A constant of whole numbers: the same are written once."""
        array = np.asarray(values, np.int64)
        key = (array.shape, array.tobytes())
        if key not in self._numbers:
            self._numbers[key] = self._constant(name, array)
        return self._numbers[key]

    def _divided_up(self, number: str, by: int) -> str:
        """Rounded up."""
        if by == 1:
            return number
        divisor = self._number("divisor", [by])
        return self._computed("Div", self._computed("Add", number, self._number("rest", [by - 1])), divisor)

    def _times(self, number: str, factor: int) -> str:
        return self._computed("Mul", number, self._number("factor", [factor]))
