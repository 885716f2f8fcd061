"""Operators of a graph, as they are written."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper


class Operators:
    """Collects operators. A call adds one; -> the name of its output.

    `prefix` is that of the names of tensors and nodes: none may stand twice in a graph.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def __call__(
        self, operator: str, *inputs: str | npt.ArrayLike, called: str = "", **attributes: Any
    ) -> str:
        """`inputs` are names of tensors, or numbers."""
        names = [each if isinstance(each, str) else self._constant(np.asarray(each)) for each in inputs]
        name = f"{self._prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [called or name], name=name, **attributes))
        return called or name

    def _constant(self, value: npt.NDArray[Any]) -> str:
        name = f"{self._prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add_graph(self, graph: GraphProto) -> None:
        """Adds all of a graph. Its names must be others than those here."""
        self.nodes.extend(graph.node)
        self.constants.extend(graph.initializer)
