"""From a trained network to a self-contained ONNX file."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Final

import onnx
import torch
from torch import nn

from ..runtime.bundle import LabelMeaning, metadata_of
from ..runtime.bundle.onnx_file import sealed
from ..runtime.errors import ModelError
from ..runtime.frontend import input_shape
from ..runtime.spec import FrontendSpec, InputKind
from ..train.method.columns import Columns
from ..train.method.model import TwinsNetwork
from .deployed_network import deployed_from_network
from .onnx_nodes import without_weights
from .wanted import MAX_BATCH

OPSET: Final = 18  # ONNX Runtime before 1.25 has no CUDA kernel for Pad-19 and ReduceMax-20
_EXAMPLE_BATCH: Final = 2  # a batch of 1 would be baked into the graph
INPUT_NAMES: Final[dict[InputKind, str]] = {"logmel": "log_mel", "waveform": "waveform", "samples": "samples"}


def onnx_from_network(
    network: TwinsNetwork,
    spec: FrontendSpec,
    labels: tuple[str, ...],
    *,
    half: bool = False,
    embeddings: bool = False,
    columns: Columns | None = None,
    meaning: LabelMeaning | None = None,
) -> bytes:
    """A serialised ModelProto that takes log_mel, with a dynamic batch and no external data.

    Its metadata has everything that scoring needs. `columns` and `meaning` are None where all scores are
    ratings in 0 to 1. Raises ModelError where a weight is not finite.
    """
    module = deployed_from_network(network, spec, half=half, embeddings=embeddings, columns=columns)
    _check_weights(module)
    name = INPUT_NAMES["logmel"]
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with _quiet():
        program = torch.onnx.export(
            module,
            (torch.zeros(_EXAMPLE_BATCH, *input_shape(spec, "logmel")),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=["scores", "embedding"] if embeddings else ["scores"],
            dynamic_shapes={name: {0: batch}},
            external_data=False,
        )
    assert program is not None
    metadata = metadata_of(labels, spec, "logmel", "fp16" if half else "fp32", meaning=meaning)
    return file_from_onnx(program.model_proto, metadata)


def _check_weights(module: nn.Module) -> None:
    broken = [name for name, tensor in module.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ModelError(
            "checkpoint",
            f"{len(broken)} tensors hold NaN or infinity (first: {broken[0]})",
            fix="train again",
        )


def file_from_onnx(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Makes every .onnx of ours: replaces the metadata, checks the model with onnx, and seals it.

    The shapes between the operators are dropped: every runtime finds them itself, and tract refuses
    symbolic ones.
    """
    del model.metadata_props[:]  # of the exporter
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(without_weights(model), full_check=True)
    return sealed(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which prints its stages and warns of its internals. Errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
