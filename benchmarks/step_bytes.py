"""How many bytes the compiled training step moves through a GPU's memory, counted without a GPU.

    python benchmarks/step_bytes.py --encoders cnn14 --batch-size 128

torch.compile traces the twin-view step in bf16, forward and backward. Inductor lowers and fuses both
graphs for a pretended H100, and its scheduler says what each kernel reads and writes. Nothing is run,
so the count is the same on every machine with the same torch. Caches are not counted: what a kernel
reads twice in a row counts twice. The optimiser, log-Mel and masks are not part of it.

It replaces parts of torch.cuda, so it is a process of its own.
"""

import argparse
import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import checkout  # noqa: F401  # before rrtn
import torch
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config
import torch._subclasses.fake_tensor as fake_tensor
import torch.utils._triton as triton_utils
from functorch.compile import min_cut_rematerialization_partition  # type: ignore[import-untyped]
from rrtn.train.config import config_from_dict
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.plan import network_from_config
from rrtn.train.step import INDUCTOR_OPTIONS, loss_from_config
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.post_grad import post_grad_passes
from torch._inductor.fx_passes.replace_random import replace_random_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

TARGETS = 10
Traced = tuple[GraphModule, list[Any]]  # a graph and its inputs


class Kernel(NamedTuple):
    """One launch of the compiled step."""

    part: str  # forward or backward
    kind: str  # "library" for convolutions and matrix products, else "fused"
    bytes: int
    what: str  # the operators that it computes


class _Traced(Exception):  # noqa: N818  # it ends torch.compile when both graphs are there
    pass


def kernels_of_step(encoder: str, *, batch_size: int) -> list[Kernel]:
    """Every kernel of the compiled step of `rrtn-ruwl`, in the order in which they run."""
    graphs = _traced(*_step(encoder, batch_size))
    with _pretended_h100(), inductor_config.patch({**INDUCTOR_OPTIONS, "fx_graph_cache": False}):
        return [kernel for part, graph in graphs.items() for kernel in _scheduled(part, *graph)]


def gigabytes(kernels: list[Kernel]) -> dict[str, float]:
    """Gigabytes of the whole step, of its halves, and of each kind of kernel."""
    total: Counter[str] = Counter()
    for kernel in kernels:
        for name in ("step", kernel.part, kernel.kind):
            total[name] += kernel.bytes
    return {name: round(count / 1e9, 3) for name, count in total.items()}


def _step(encoder: str, batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    document = {
        "model": {"encoder": encoder, "method": "rrtn-ruwl"},
        "data": {"targets": [f"t{i}" for i in range(TARGETS)]},
        "optim": {"epochs": 1, "batch_size": batch_size},
        "precision": "bf16",
        "compile": "default",
    }
    config = config_from_dict(document, source="step_bytes")
    network = network_from_config(config)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = loss_from_config(config, network.train())
    shape = (batch_size, 1, config.frontend.frames, config.frontend.n_mels)
    # Two tensors: of one tensor given twice, the compiler would compute the first block once.
    views = torch.empty(shape), torch.empty(shape)
    return loss, (*views, torch.empty(batch_size, TARGETS))


def _traced(loss: nn.Module, arguments: tuple[torch.Tensor, ...]) -> dict[str, Traced]:
    """The graphs that Inductor would get, forward and backward. They are traced on the CPU."""
    found: dict[str, Traced] = {}

    def keeper(part: str) -> Any:
        def keep(graph: GraphModule, inputs: list[Any]) -> Any:
            found[part] = (graph, inputs)
            return graph.forward

        return keep

    def partition(graph: Any, inputs: Any, **more: Any) -> Any:
        return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **more)

    backend = aot_autograd(
        fw_compiler=keeper("forward"),
        bw_compiler=keeper("backward"),
        decompositions=select_decomp_table(),
        partition_fn=partition,
    )

    def traced(graph: GraphModule, inputs: list[Any]) -> Any:
        backend(graph, inputs)
        raise _Traced

    with functorch_config.patch(force_non_lazy_backward_lowering=True):
        try:
            torch.compile(loss, backend=traced, fullgraph=True)(*arguments)
        except Exception as error:
            if set(found) != {"forward", "backward"}:
                raise RuntimeError("the step could not be traced") from error
    return found


class _H100:
    """What Inductor asks of a GPU."""

    name = "NVIDIA H100"
    major, minor = 9, 0
    multi_processor_count = 132
    total_memory = 80 << 30
    regs_per_multiprocessor = 65_536
    max_threads_per_multi_processor = 2048
    max_threads_per_block = 1024
    warp_size = 32
    shared_memory_per_block = 49_152
    shared_memory_per_block_optin = 232_448
    shared_memory_per_multiprocessor = 233_472
    L2_cache_size = 50 << 20
    gcnArchName = ""  # noqa: N815  # torch's name


@contextlib.contextmanager
def _pretended_h100() -> Iterator[None]:
    """torch.cuda and Inductor as on a machine with an H100, while the block runs."""
    with contextlib.ExitStack() as patches:
        for target, name, value in _replacements():
            patches.enter_context(mock.patch.object(target, name, value))
        yield


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    def always(value: Any) -> Any:
        return lambda *_, **__: value

    answers = {
        "get_device_properties": _H100(),
        "is_available": True,
        "current_device": 0,
        "device_count": 1,
        "get_device_capability": (9, 0),
        "synchronize": None,
        "_lazy_init": None,
        "is_bf16_supported": True,
        "is_initialized": False,
    }
    for name, value in answers.items():
        yield torch.cuda, name, always(value)
    of_interface = {
        "is_available": True,
        "get_compute_capability": 90,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
        "get_device_properties": _H100(),
    }
    for name, value in of_interface.items():
        yield CudaInterface, name, staticmethod(always(value))
    yield CudaInterface.Worker, "get_device_properties", staticmethod(always(_H100()))
    yield CudaInterface.Worker, "current_device", staticmethod(always(0))
    for module in (scheduler, triton_utils):
        for name in ("has_triton", "has_triton_package"):
            if hasattr(module, name):
                yield module, name, always(True)
    yield fake_tensor, "init_gpu_context", always(None)
    yield torch._C, "_conv_determine_backend_memory_format", _format_of_convolution


def _format_of_convolution(_input: Any, weight: torch.Tensor, _backend: Any) -> torch.memory_format:
    """Channels last, as cuDNN takes it where input and weight lie so."""
    return torch.channels_last if weight.dim() == 4 else torch.contiguous_format


def _scheduled(part: str, graph: GraphModule, inputs: list[Any]) -> Iterator[Kernel]:
    """The kernels that Inductor makes of a graph, after its passes and its fusion."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    inputs = _on_gpu(graph, inputs, mode)
    with V.set_fake_mode(mode):
        FakeTensorProp(graph, mode).propagate(*inputs)
        replace_random_passes(graph)
        FakeTensorProp(graph, mode).propagate(*inputs)
        post_grad_passes(graph, is_inference=False)
        FakeTensorProp(graph, mode).propagate(*inputs)
        backward = part == "backward"
        lowering = GraphLowering(
            graph,
            example_inputs=inputs,
            shape_env=mode.shape_env,
            is_backward=backward,
            graph_id=int(backward),
        )
        with V.set_graph_handler(lowering), V.set_debug_handler(DebugContext()):
            lowering.run(*inputs)
            lowering.init_wrapper_code()
            lowering._update_scheduler()  # what codegen does first: the fusion
            for node in lowering.scheduler.nodes:
                kind = "library" if node.is_extern() else "fused"
                yield Kernel(part, kind, int(node.get_read_write_buffers_sizes()), _operators(node))


def _on_gpu(graph: GraphModule, inputs: list[Any], mode: FakeTensorMode) -> list[Any]:
    """Moves a graph that was traced on the CPU to the GPU; -> its inputs there, as shapes."""
    gpu = torch.device("cuda", 0)
    for node in graph.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": gpu}
        node.args = tuple(gpu if isinstance(value, torch.device) else value for value in node.args)
    graph.recompile()
    with mode:
        return [
            torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
            if isinstance(value, torch.Tensor)
            else value
            for value in inputs
        ]


def _operators(node: Any) -> str:
    names = {
        str(origin.target).removeprefix("aten.")
        for inner in node.get_nodes()
        if inner.node is not None
        for origin in inner.node.get_origins()
    }
    return ", ".join(sorted(names))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--largest", type=int, default=0, help="kernels to list, those that move most first")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # of Inductor, about torch
    results = {}
    for encoder in arguments.encoders:
        torch.compiler.reset()
        kernels = kernels_of_step(encoder, batch_size=arguments.batch_size)
        results[encoder] = {"gb": gigabytes(kernels), "kernels": len(kernels)}
        print(f"{encoder}, batch {arguments.batch_size}: {results[encoder]}", flush=True)
        for kernel in sorted(kernels, key=lambda kernel: -kernel.bytes)[: arguments.largest]:
            print(f"  {kernel.bytes / 1e9:.3f} GB {kernel.part} {kernel.kind}: {kernel.what[:150]}")
    document = {
        "benchmark": "step bytes",
        "versions": {"torch": torch.__version__},
        "batch_size": arguments.batch_size,
        "results": results,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
