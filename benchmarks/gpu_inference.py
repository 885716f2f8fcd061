"""Section `infer`: one model through every runtime that is here.

B batch, N samples, T frames, M mels, K targets.
"""

import contextlib
import copy
import functools
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import checkout
import numpy as np
import torch
from gpu_corpus import items_of_corpus, split_of_items
from gpu_section import Place, Record, latency, peak_memory_gb, wait
from rrtn.export.deployed_network import half_encoder
from rrtn.export.engine import engine_from_onnx
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import int8_for_cpu, int8_for_tensorrt
from rrtn.export.parity import torch_scores
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.export.wanted import EngineOptions
from rrtn.runtime import FrontendSpec
from rrtn.runtime.arrays import Float32, waveform_from_samples
from rrtn.runtime.backends.base import Backend
from rrtn.runtime.backends.choice import backend_from_variant
from rrtn.runtime.backends.cuda_libraries import cuda_missing
from rrtn.runtime.backends.model_batch import padded
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.errors import ConfigError, UnavailableError
from rrtn.runtime.frontend import clip_log_mel
from rrtn.runtime.probe_sounds import SCORE_LIMITS, extremes
from rrtn.runtime.spec import InputKind
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.metrics import ccc_biased
from rrtn.train.method.model import TwinsNetwork
from torch import Tensor

TRT = ("tensorrt", "tensorrt_rtx")
HALF_FACTOR = 3.0  # of float16 on a device against float16 on the CPU
# log_mel [B, 1, T, M] or waveform [B, N] on the host -> scores [B, K] on the host.
Runs = Callable[[Float32], Float32]
Flavour = tuple[Runs, InputKind, str]  # run, kind of input, precision


class Model:
    """A network whose scores spread over 0 to 1, clips, and what PyTorch makes of them on the CPU
    in float32.
    """

    def __init__(self, encoder: EncoderName, clips: int) -> None:
        self.encoder, self.spec = encoder, FrontendSpec()
        items = items_of_corpus(clips, speakers=3, spec=self.spec)
        split = split_of_items(items, self.spec, torch.device("cpu"))
        chosen = np.arange(clips)
        bursts = waveform_from_samples(split.store.clips(chosen, np.zeros_like(chosen), self.spec))
        self.waveforms = np.concatenate([bursts, extremes(self.spec)])
        self.log_mels = np.array([clip_log_mel(clip, self.spec)[None] for clip in self.waveforms])
        self.network = spread_network(encoder, torch.from_numpy(self.log_mels[:clips]))
        self.reference = torch_scores(self.network, self.spec, self.waveforms)
        self.bursts = clips
        self.limits = {**SCORE_LIMITS, "fp16": max(SCORE_LIMITS["fp16"], HALF_FACTOR * self._half_error())}

    def _half_error(self) -> float:
        """What float16 costs this network by PyTorch on the CPU, extremes among the clips.

        Its weights are not trained ones, for which the limit is known.
        """
        run = torch_run(with_half_encoder(self.network, self.spec), torch.device("cpu"))
        return float(np.abs(batched(run, self.log_mels[-16:], 8) - self.reference[-16:]).max())

    def inputs(self, kind: InputKind) -> Float32:
        """All clips as a variant takes them."""
        return self.waveforms if kind == "waveform" else self.log_mels


def with_half_encoder(network: TwinsNetwork, spec: FrontendSpec) -> TwinsNetwork:
    """A copy that computes what the fp16 graphs do: bn0 and head in float32."""
    half = copy.deepcopy(network)
    half.encoder = half_encoder(half.encoder, spec)  # type: ignore[assignment]
    return half


def spread_network(encoder: EncoderName, log_mels: Tensor) -> TwinsNetwork:
    """Random weights, but BatchNorm that knows the clips and a head that separates them: else
    parity would be easy.
    """
    torch.manual_seed(0)
    network = TwinsNetwork(encoder, n_mels=log_mels.shape[-1], n_targets=len(EMOTIONS), projector_layers=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in log_mels.split(16):
            network.train()(batch)
        embedding = torch.cat([network.eval().encoder(batch) for batch in log_mels.split(16)])
        centred = embedding - embedding.mean(0)
        logits = centred @ network.head.weight.T
        network.head.weight.mul_((1.5 / logits.std(0))[:, None])
        network.head.bias.copy_(-(embedding.mean(0) @ network.head.weight.T))
    return network.eval()


def section_infer(place: Place, record: Record) -> None:
    """Parity of every flavour first; nothing that computes something else is timed.

    Copies to and from the host are in.
    """
    record.more["not_here"] = missing_runtimes(place)
    for text in record.more["not_here"].values():
        record.note(text)
    for encoder in place.chosen(tuple(reversed(ENCODERS)), ("resnet18",)):
        torch.compiler.reset()  # dynamo keeps eight graphs of one function, and every encoder has three
        with record.part(encoder), recompiling_is_bounded(), tempfile.TemporaryDirectory() as name:
            infer_with(place, record, encoder, Path(name))
        record.more["peak_memory_gb"] = peak_memory_gb(place.device)


@contextlib.contextmanager
def recompiling_is_bounded() -> Iterator[None]:
    """A graph more than dynamo keeps is an error: it would run eager, and be timed as compiled."""
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


def infer_with(place: Place, record: Record, encoder: EncoderName, folder: Path) -> None:
    """Every flavour of one model: loaded, compared, timed."""
    model = Model(encoder, place.size(124, 4))
    flavours: dict[str, Flavour] = {}
    with record.part(f"{encoder} torch"):
        flavours |= torch_flavours(place, model)
    flavours |= runtime_flavours(place, record, model, folder)
    sound = []
    for name, flavour in flavours.items():
        with record.part(f"{encoder} {name}: parity"):
            if has_parity(record, model, name, *flavour):
                sound.append(name)
    for name in sound:
        if place.left() < 20:
            record.leave_out(f"{encoder} {name}: timing")
            continue
        with record.part(f"{encoder} {name}: timing"):
            run, kind, _ = flavours[name]
            time_flavour(place, record, model, name, run, kind)


def missing_runtimes(place: Place) -> dict[str, str]:
    """Which of what this section compares cannot run here, and why."""
    missing = {}
    if place.device.type == "cuda" and (reason := cuda_missing()):
        missing["onnxruntime cuda"] = f"ONNX Runtime on CUDA is left out: {reason}"
    for flavour in TRT:
        if not checkout.is_installed(flavour):
            missing[flavour] = f"{flavour} is left out: it is not installed"
        elif place.device.type == "cpu":
            missing[flavour] = f"{flavour} is left out: no GPU"
    return missing


def torch_flavours(place: Place, model: Model) -> dict[str, Flavour]:
    """Eager in fp32, fp16 and bf16, and fp16 compiled with CUDA graphs."""
    device = place.device
    plain = copy.deepcopy(model.network).to(device)
    half = with_half_encoder(model.network, model.spec)
    half = half.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(
        half, dynamic=False, mode=place.size("reduce-overhead", None), backend=place.size("inductor", "eager")
    )
    return {
        "torch fp32": (torch_run(plain, device), "logmel", "fp32"),
        "torch fp16": (torch_run(half, device), "logmel", "fp16"),
        "torch bf16": (torch_run(plain, device, autocast=True), "logmel", "bf16"),
        "torch fp16 compiled": (
            in_sizes(torch_run(compiled, device), place.size((1, 32, 256), (1, 8))),
            "logmel",
            "fp16",
        ),
    }


def torch_run(network: Callable[[Tensor], Any], device: torch.device, *, autocast: bool = False) -> Runs:
    """TF32 is off."""

    @torch.no_grad()
    def run(batch: Float32) -> Float32:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            scores: Float32 = network(torch.from_numpy(batch).to(device)).scores.cpu().numpy()
        return scores

    return run


def in_sizes(run: Runs, sizes: tuple[int, ...]) -> Runs:
    """For what is compiled for each batch size anew: few of them."""
    return lambda batch: run(padded(batch, next(size for size in sizes if size >= len(batch))))[: len(batch)]


def runtime_flavours(place: Place, record: Record, model: Model, folder: Path) -> dict[str, Flavour]:
    """ONNX Runtime on CPU and CUDA, TensorRT and TensorRT-RTX, through rrtn's own backends."""
    flavours: dict[str, Flavour] = {}
    missing = record.more["not_here"]
    bundle = bundle_of_model(model, folder)
    only_cpu = place.device.type == "cpu" or "onnxruntime cuda" in missing
    devices = ("cpu",) if only_cpu else ("cpu", "cuda")
    jobs: list[tuple[str, Callable[[], Backend]]] = []
    for variant in bundle.variants:
        for device in devices:
            if variant.precision == "int8" and device == "cuda":
                continue  # its operators are a CPU's
            jobs.append(
                (
                    f"ort {device} {variant.name}",
                    functools.partial(backend_from_variant, bundle, variant, device),
                )
            )
    for name in (name for name in TRT if name not in missing):
        for precision in ("fp32", "fp16", "int8"):
            jobs.append(
                (
                    f"{name} {precision}",
                    functools.partial(engine_backend, record, model, bundle, name, precision),
                )
            )
    for name, load in jobs:
        if place.left() < 60 and not place.smoke:
            record.leave_out(f"{model.encoder} {name}")
            continue
        with record.part(f"{model.encoder} {name}: loading"):
            try:
                backend = load()
            except (ConfigError, UnavailableError) as error:  # it cannot run on this machine
                record.note(f"{model.encoder} {name}: does not load: {error}")
                continue
            flavours[name] = (backend.scores, backend.variant.input, backend.variant.precision)
    return flavours


def bundle_of_model(model: Model, folder: Path) -> Bundle:
    """fp32 and fp16 of both inputs, and int8 for CPUs."""
    calibration = model.log_mels[: model.bursts]
    files: dict[tuple[InputKind, str], bytes] = {}
    for precision in ("fp32", "fp16"):
        content = onnx_from_network(model.network, model.spec, EMOTIONS, half=precision == "fp16")
        files["logmel", precision] = content
        files["waveform", precision] = waveform_from_log_mel(content, model.spec)
    files["logmel", "int8"] = int8_for_cpu(files["logmel", "fp32"], calibration)
    variants = tuple(
        variant_of(folder, form, precision, content, "onnx") for (form, precision), content in files.items()
    )
    return Bundle(path=folder, labels=EMOTIONS, spec=model.spec, variants=variants, provenance={})


def variant_of(
    folder: Path,
    form: InputKind,
    precision: str,
    content: bytes,
    kind: Literal["onnx", "engine"],
    *,
    stamp: dict[str, Any] | None = None,
) -> Variant:
    file = f"{form}.{precision}.{kind}"
    (folder / file).write_bytes(content)
    return Variant(
        name=f"{form} {precision}",
        file=file,
        kind=kind,
        input=form,
        precision=precision,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        stamp=stamp,
    )


def engine_backend(record: Record, model: Model, bundle: Bundle, flavour: str, precision: str) -> Backend:
    """Built here from the waveform graph, and loaded."""
    source = bundle.variant(f"waveform {'fp32' if precision == 'int8' else precision}")
    assert source is not None
    content = bundle.read(source)
    if precision == "int8":
        content = int8_for_tensorrt(content, model.waveforms)
    start = time.perf_counter()
    capability = torch.cuda.get_device_capability()
    options = EngineOptions(targets=(10 * capability[0] + capability[1],))
    plan, stamp = engine_from_onnx(content, flavour, precision=precision, options=options)
    built = time.perf_counter() - start
    variant = variant_of(bundle.path, "waveform", precision, plan, "engine", stamp=stamp.to_dict())
    backend = backend_from_variant(bundle, variant, "trt")
    loaded = time.perf_counter() - start - built
    record.add(
        f"{model.encoder} {flavour} {precision} engine",
        build_s=round(built, 1),
        load_s=round(loaded, 2),
        plan_mb=round(len(plan) / 1e6, 1),
        version=stamp.version,
        convolutions=stamp.convolutions,
    )
    return backend


def has_parity(record: Record, model: Model, name: str, run: Runs, kind: InputKind, precision: str) -> bool:
    """Batches of 32, 7 and 1, and permuted. int8 and bf16 have no limit of a score, but CCC with
    the reference is told.
    """
    x, shuffled = model.inputs(kind), np.random.default_rng(1).permutation(len(model.reference))
    some = np.r_[: min(14, model.bursts), model.bursts : len(x)]
    scores = batched(run, x, 32)
    found = [scores - model.reference, batched(run, x[shuffled], 32) - model.reference[shuffled]]
    found += [batched(run, x[some], size) - model.reference[some] for size in (7, 1)]
    largest = max(float(np.abs(part).max()) for part in found)  # NaN where there is one: not within any limit
    if np.isnan(np.concatenate(found)).any():
        largest = float("nan")
    ccc = float(ccc_biased(scores[: model.bursts], model.reference[: model.bursts]).mean())
    limit = model.limits.get(precision, 1.0)
    record.check(
        f"{model.encoder} {name}: largest difference of a score", largest, limit, ccc_with_fp32=round(ccc, 5)
    )
    return largest <= limit


def batched(run: Runs, x: Float32, size: int) -> Float32:
    return np.concatenate([run(x[i : i + size]) for i in range(0, len(x), size)])


def time_flavour(place: Place, record: Record, model: Model, name: str, run: Runs, kind: InputKind) -> None:
    """Latency at batch 1 and throughput at larger batches, within some seconds each."""
    slow = "cpu" in name or place.device.type == "cpu"
    for batch in place.size((1, 32) if slow else (1, 32, 256), (1, 4)):
        clips = np.resize(model.inputs(kind), (batch, *model.inputs(kind).shape[1:]))
        wait(place.device)
        for _ in range(place.size(2 if slow else 20, 1)):
            run(clips)
        seconds: list[float] = []
        begun, (fewest, most, budget) = (
            time.perf_counter(),
            place.size((5, 5000 if batch == 1 else 200, 3.0), (2, 2, 0.0)),
        )
        while len(seconds) < fewest or (len(seconds) < most and time.perf_counter() - begun < budget):
            start = time.perf_counter()
            run(clips)  # returns with the scores on the host
            seconds.append(time.perf_counter() - start)
        record.add(f"{model.encoder} {name} batch {batch}", **latency(seconds, clips=batch))
