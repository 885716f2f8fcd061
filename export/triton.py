"""A model repository for NVIDIA Triton, made from a bundle.

`tritonserver --model-repository DIR` serves it:

    DIR/rrtn.json                      what was written here, with hashes; Triton looks at folders only
    DIR/rrtn_waveform/config.pbtxt     one folder a variant: rrtn_logmel, rrtn_waveform_trt, ...
    DIR/rrtn_waveform/labels.txt
    DIR/rrtn_waveform/1/model.onnx

Clients send clips whose level is already set, as rrtn.runtime.model_input.ModelInput makes them.
The server must be version 24.07 or later: earlier ones do not know the option that turns TF32 off.

B batch, N samples, T frames, M mels, K targets.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from .. import __version__
from ..runtime.bundle import Bundle, Variant
from ..runtime.errors import ModelError
from ..runtime.system.files import write_bytes
from ..runtime.text import printable
from .written_folder import check_rewritable, rewritten

_OPTION: Final = "--triton"
_HOLDS: Final = "a model repository of rrtn and nothing else"
CONFIG: Final = "config.pbtxt"
LABELS: Final = "labels.txt"
MODEL_FILES: Final = {"onnx": "1/model.onnx", "engine": "1/model.plan"}
# The largest batch that rrtn itself scores on a GPU. The graph allows 1024, which might not fit into
# the memory of a smaller GPU.
ONNX_BATCH: Final = 256
WARMUP_BATCHES: Final = (1, 32)
QUEUE_DELAY: Final = 2000  # microseconds that a request waits for others to share its batch
# TF32 would move fp32 scores by more than the parity limit.
_TF32_OFF: Final = """\
optimization {
  execution_accelerators {
    gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
  }
}
"""


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a graph, without its batch dimension. All are float32."""

    name: str
    dims: tuple[int, ...]


def check_repository_place(folder: Path) -> None:
    """Raises ModelError where `folder` has a file that rrtn did not write, or that was changed since."""
    check_rewritable(folder, _OPTION, _HOLDS)


def triton_repository_from_bundle(bundle: Bundle, folder: Path) -> list[Path]:
    """Writes `folder` anew, in place of a repository that rrtn wrote.

    -> the folder of each variant, except for those in `not_servable`. Raises ModelError where
    `folder` has a file that this function did not write, or that was changed since.
    """
    check_repository_place(folder)
    skipped = not_servable(bundle)
    variants = [variant for variant in bundle.variants if variant.name not in skipped]
    if not variants:
        raise ModelError(
            str(bundle.path),
            "; ".join(skipped.values()) or "no variants",
            wanted="a variant that Triton can serve",
            fix="export again",
        )
    with rewritten(folder, _OPTION, _HOLDS) as staging:
        for variant in variants:
            _write_model(bundle, variant, staging / model_name(variant))
    return [folder / model_name(variant) for variant in variants]


def not_servable(bundle: Bundle) -> dict[str, str]:
    """The variants that no repository can hold: name -> reason."""
    reasons = {variant.name: _obstacle(bundle, variant) for variant in bundle.variants}
    return {name: reason for name, reason in reasons.items() if reason}


def model_name(variant: Variant) -> str:
    """The name of the variant for Triton and its clients."""
    parts = ["rrtn", variant.input]
    parts += [variant.precision] if variant.precision != "fp32" else []
    parts += ["trt"] if variant.kind == "engine" else []
    return "_".join(parts)


def _obstacle(bundle: Bundle, variant: Variant) -> str:
    if variant.input == "waveform" and bundle.spec.pad == "zero_db":
        return "frontend.pad zero_db is not samples: a graph that takes waveforms cannot pad so"
    if reason := _made_for_others(variant):
        return reason
    if variant.kind == "onnx":
        return ""
    if _stamp(variant)["flavour"] != "tensorrt":
        return (
            f"Triton runs TensorRT engines, this is one of {_stamp(variant)['flavour']}; export "
            "--trt where TensorRT is"
        )
    return "" if _source(bundle, variant) else "the bundle does not hold the ONNX file that it was built from"


def _made_for_others(variant: Variant) -> str:
    if variant.input == "samples":
        return "it takes one recording at a time; Triton serves waveform, in batches"
    if variant.name == "waveform-int8-trt":
        return "the engine trt-int8 is made from it; Triton serves waveform-int8"
    if variant.kind == "mnn":
        return "it is in MNN's format, for rrtn; Triton serves fp32"
    return "it is for rrtn on CPUs; Triton serves fp32, on GPUs too" if variant.plan else ""


def _write_model(bundle: Bundle, variant: Variant, folder: Path) -> None:
    (folder / "1").mkdir(parents=True)
    content = bundle.read(variant)
    source = _source(bundle, variant)
    assert source is not None  # a variant without one is not servable
    inputs, outputs = _inputs_and_outputs(content if source is variant else bundle.read(source))
    config = (
        _onnx_config(inputs, outputs) if variant.kind == "onnx" else _engine_config(variant, inputs, outputs)
    )
    header = f'# {_instruction(bundle, variant)}\nname: "{model_name(variant)}"\n'
    write_bytes(folder / MODEL_FILES[variant.kind], content)
    write_bytes(folder / LABELS, "".join(f"{printable(label)}\n" for label in bundle.labels).encode())
    write_bytes(folder / CONFIG, (header + config + _provenance(bundle, variant)).encode())


def _instruction(bundle: Bundle, variant: Variant) -> str:
    spec = bundle.spec
    if variant.input == "logmel":
        return (
            f"log_mel: dB [1, {spec.frames}, {spec.n_mels}] as ModelInput of "
            "rrtn.runtime.model_input gives it"
        )
    return (
        f"waveform: the first {spec.clip_samples} samples of a mono recording at "
        f"{spec.sampling_rate} Hz, zeros behind a "
        f"shorter one, once the peak of the whole recording is set to {spec.peak_dbfs:g} dBFS"
    )


def _onnx_config(inputs: list[_Tensor], outputs: list[_Tensor]) -> str:
    """One instance: Triton would start two on a CPU, each with threads for all cores."""
    head = f'backend: "onnxruntime"\nmax_batch_size: {ONNX_BATCH}\n'
    # 1 is HEURISTIC: the default would time every algorithm again for each new size of batch. Triton
    # reads it only here: in execution_accelerators, any other parameter would overwrite it.
    search = _parameter("cudnn_conv_algo_search", "1")
    return (
        head
        + _tensors(inputs, outputs)
        + _scheduling(inputs, ONNX_BATCH, kind="KIND_AUTO")
        + _TF32_OFF
        + search
    )


def _engine_config(variant: Variant, inputs: list[_Tensor], outputs: list[_Tensor]) -> str:
    largest = _stamp(variant)["batch_profile"][2]
    head = f'platform: "tensorrt_plan"\nmax_batch_size: {largest}\n'
    return head + _tensors(inputs, outputs) + _scheduling(inputs, largest, kind="KIND_GPU")


def _tensors(inputs: list[_Tensor], outputs: list[_Tensor]) -> str:
    labels = {"scores": f' label_filename: "{LABELS}"'}
    given = [f"  {{ {_entry(tensor)} }}" for tensor in inputs]
    returned = [f"  {{ {_entry(tensor)}{labels.get(tensor.name, '')} }}" for tensor in outputs]
    return _list("input", given) + _list("output", returned)


def _list(field: str, lines: list[str]) -> str:
    return f"{field} [\n" + ",\n".join(lines) + "\n]\n"


def _entry(tensor: _Tensor) -> str:
    return f'name: "{tensor.name}" {_type(tensor)}'


def _type(tensor: _Tensor) -> str:
    return f"data_type: TYPE_FP32 dims: {list(tensor.dims)}"


def _scheduling(inputs: list[_Tensor], max_batch: int, *, kind: str) -> str:
    """The device, how requests share a batch, and the zeros that the server warms up with."""
    zeros = " ".join(
        f'inputs {{ key: "{tensor.name}" value {{ {_type(tensor)} zero_data: true }} }}' for tensor in inputs
    )
    batches = [batch for batch in WARMUP_BATCHES if batch <= max_batch]
    warmup = [f'  {{ name: "batch {batch}" batch_size: {batch} {zeros} }}' for batch in batches]
    place = f"instance_group [ {{ count: 1 kind: {kind} }} ]\n"
    queue = f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}\n"
    return place + queue + _list("model_warmup", warmup)


def _provenance(bundle: Bundle, variant: Variant) -> str:
    known = {
        "rrtn_version": __version__,
        "rrtn_sha256": variant.sha256,
        "rrtn_input": variant.input,
        "rrtn_frontend": json.dumps(bundle.spec.to_dict()),
        "rrtn_meaning": json.dumps(bundle.meaning.to_dict()) if bundle.meaning else None,
        "rrtn_checkpoint_sha256": bundle.provenance.get("checkpoint_sha256"),
        "rrtn_engine": json.dumps(variant.stamp) if variant.stamp else None,
    }
    return "".join(_parameter(key, value) for key, value in known.items() if value)


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{_escaped(value)}" }} }}\n'


def _escaped(text: str) -> str:
    """For a protobuf text-format string: printable ASCII, every other byte in octal."""
    escapes = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {ord('"'): '\\"', ord("\\"): "\\\\"}
    return "".join(escapes.get(byte, f"\\{byte:03o}") for byte in text.encode())


def _source(bundle: Bundle, variant: Variant) -> Variant | None:
    """The ONNX variant with the same inputs and outputs.

    It is the variant itself, or the one that the engine was built from.
    """
    if variant.kind == "onnx":
        return variant
    digest = _stamp(variant)["onnx_sha256"]
    return next((other for other in bundle.variants if other.sha256 == digest), None)


def _inputs_and_outputs(model: bytes) -> tuple[list[_Tensor], list[_Tensor]]:
    graph = onnx.load_from_string(model).graph
    return [_tensor(value) for value in graph.input], [_tensor(value) for value in graph.output]


def _tensor(value: onnx.ValueInfoProto) -> _Tensor:
    tensor = value.type.tensor_type
    dims = tuple(dim.dim_value for dim in tensor.shape.dim[1:])
    assert tensor.elem_type == onnx.TensorProto.FLOAT
    assert all(dims), "only the batch is dynamic"
    return _Tensor(value.name, dims)


def _stamp(engine: Variant) -> dict[str, Any]:
    assert engine.stamp is not None  # every engine has one
    return engine.stamp
