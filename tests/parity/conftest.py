"""A bundle of a network with random weights, for what opens or serves bundles."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rrtn.export.graph import onnx_from_network
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.export.winograd.rewriting import WinogradPlan, convolutions_of, ways_of
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.arrays import Float32
from rrtn.runtime.bundle import MANIFEST, Bundle, Variant, metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.frontend import clip_log_mel, clip_of
from rrtn.runtime.system.files import write_json
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import Head, TwinsNetwork


@pytest.fixture(scope="session")
def awkward_labels() -> tuple[str, ...]:
    """What a CSV's header may hold, and YAML, protobuf or a locale may stumble on."""
    return ("Awe", 'Fear "of: #all"', "ĩntrigue \\ 😀", "yes")


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory, awkward_labels: tuple[str, ...]) -> Bundle:
    """A narrow CNN as `rrtn export` publishes it, both graphs.

    To be left as it is: tests copy its folder to write there.
    """
    return _bundle_in(tmp_path_factory.mktemp("bundle"), awkward_labels)


@pytest.fixture(scope="session")
def embedding_bundle(tmp_path_factory: pytest.TempPathFactory, awkward_labels: tuple[str, ...]) -> Bundle:
    """The same, as `rrtn export --embeddings` publishes it."""
    return _bundle_in(tmp_path_factory.mktemp("embeddings"), awkward_labels, embeddings=True)


@pytest.fixture(scope="session")
def noisy_log_mels(random_bundle: Bundle) -> Float32:
    """Clips of many levels, to calibrate int8 on."""
    rng = np.random.default_rng(0)
    noises = [np.tanh(np.cumsum(rng.normal(0, 0.01, 39_840)) * level) for level in (0.01, 0.1, 1.0)]
    return np.array([clip_log_mel(noise.astype(np.float32), random_bundle.spec)[None] for noise in noises])


@pytest.fixture(scope="session")
def first_ways(random_bundle: Bundle) -> WinogradPlan:
    """Each convolution of the narrow CNN that can be computed with fewer multiplications, so computed."""
    layers = convolutions_of(onnx.load_from_string(random_bundle.read(random_bundle.variants[0])))
    plan = {layer.name: ways_of(layer)[0] for layer in layers if ways_of(layer)}
    assert len(plan) > 1
    return plan


def _bundle_in(folder: Path, awkward_labels: tuple[str, ...], *, embeddings: bool = False) -> Bundle:
    spec = FrontendSpec()
    network = _network(spec, len(awkward_labels))
    variants = []
    model = onnx_from_network(network, spec, awkward_labels, embeddings=embeddings)
    for name, kind, file, content in (
        ("fp32", "logmel", "model.onnx", model),
        ("waveform", "waveform", "model.waveform.onnx", waveform_from_log_mel(model, spec)),
    ):
        (folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        variants.append(
            Variant(
                name=name,
                file=file,
                kind="onnx",
                input=kind,
                precision="fp32",
                sha256=digest,
                size=len(content),
            )
        )
    bundle = Bundle(
        path=folder, labels=awkward_labels, spec=spec, variants=tuple(variants), provenance={"epoch": 1}
    )
    write_json(folder / MANIFEST, bundle.manifest())
    return load_bundle(folder)


def _network(spec: FrontendSpec, targets: int) -> TwinsNetwork:
    """Statistics and head from noises of many lengths and levels, so that none of them saturates
    the scores.
    """
    torch.manual_seed(0)
    network = TwinsNetwork("cnn10", n_mels=spec.n_mels, n_targets=targets, activation="linear")
    network.encoder = PannsCnn(spec.n_mels, channels=(8, 16, 32), pooled_blocks=3)
    network.head = Head(32, targets, "linear")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of what comes
    rng = np.random.default_rng(0)
    noises = [
        np.cumsum(rng.normal(0, 0.1, size)) * level
        for size in (300, 5_000, 20_000, 60_000)
        for level in (0.01, 0.1, 1)
    ]
    log_mels = LogMel(spec)(
        torch.from_numpy(np.array([clip_of(np.tanh(noise), spec) for noise in noises], np.float32))
    )
    with torch.no_grad():
        network.train()(log_mels)
        logits = network.eval()(log_mels).scores
        network.head.weight.div_(logits.std(dim=0)[:, None])
        network.head.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))
    network.head.activation = "sigmoid"
    return network


@pytest.fixture
def sealed_anew(tmp_path: Path) -> Callable[..., Bundle]:
    """The same graphs in another folder, sealed with other labels or another spec."""

    def make(bundle: Bundle, **changes: Any) -> Bundle:
        changed = replace(bundle, path=tmp_path / "sealed anew", **changes)
        changed.path.mkdir()
        variants = []
        for variant in bundle.variants:
            model = onnx.load_from_string(bundle.read(variant))
            del model.metadata_props[:]
            metadata = metadata_of(changed.labels, changed.spec, variant.input, variant.precision)
            onnx.helper.set_model_props(model, metadata)
            content = sealed(model.SerializeToString())
            (changed.path / variant.file).write_bytes(content)
            variants.append(replace(variant, sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
        return replace(changed, variants=tuple(variants))

    return make
