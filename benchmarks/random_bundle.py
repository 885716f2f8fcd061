"""Bundles with random weights and every variant for processors: their speed does not depend on the weights.

python benchmarks/random_bundle.py FOLDER
    one for each encoder, in FOLDER/<encoder>; `make .bundles` does this
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import runtimes  # noqa: F401  # finds MNN in .peers
import torch
from rrtn.export.graph import file_from_onnx, onnx_from_network
from rrtn.export.int8 import int8_for_cpu
from rrtn.export.mnn_file import mnn_from_onnx
from rrtn.export.recipes import ALL
from rrtn.export.winograd.cpu_variant import cpu_variant_of
from rrtn.export.winograd.int8_variant import cpu_int8_variant_of
from rrtn.runtime import FrontendSpec
from rrtn.runtime.arrays import Float32
from rrtn.runtime.backends.mnn_kind import mnn_missing
from rrtn.runtime.bundle import MANIFEST, Bundle, Variant, load_bundle, metadata_of
from rrtn.runtime.frontend import clip_log_mel, decibels_behind
from rrtn.runtime.probe_sounds import extremes, voices
from rrtn.runtime.system.files import write_json
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.model import TwinsNetwork

SPEC = FrontendSpec()
LABELS = tuple("ABCDEFGHIJ")
_FILES = {recipe.name: recipe.file for recipe in ALL}


def network_of(encoder: EncoderName) -> TwinsNetwork:
    """Encoder and head with random weights."""
    torch.manual_seed(0)
    return TwinsNetwork(encoder, n_mels=SPEC.n_mels, n_targets=len(LABELS), projector_layers=0).eval()


def model_file(encoder: EncoderName, folder: Path) -> Path:
    """The fp32 graph alone."""
    path = folder / f"{encoder}.onnx"
    path.write_bytes(onnx_from_network(network_of(encoder), SPEC, LABELS))
    return path


def noise(clips: int) -> Float32:
    """log-Mel [clips, 1, T, M] that is normal noise."""
    shape = (clips, 1, SPEC.frames, SPEC.n_mels)
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def sounds() -> Float32:
    """log-Mel [clips, 1, T, M] of voices, silence and noise: what int8 is calibrated on."""
    waveforms = np.concatenate([voices(SPEC), extremes(SPEC)])
    return np.array([clip_log_mel(waveform, SPEC)[None] for waveform in waveforms])


def kept_bundle(encoder: EncoderName, folder: Path) -> Bundle:
    """The one of `make .bundles` in FOLDER/<encoder>; it is made where it is missing."""
    inside = folder / encoder
    return load_bundle(inside) if (inside / MANIFEST).exists() else random_bundle(encoder, inside)


def random_bundle(encoder: EncoderName, folder: Path) -> Bundle:
    """fp32, `cpu`, int8 and `cpu-int8`, faster or not; and `mnn` where MNN is there.

    They are as `rrtn export` writes them, but for the gate, which knows no random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fp32 = onnx_from_network(network_of(encoder), SPEC, LABELS)
    int8 = int8_for_cpu(fp32, sounds())
    contents = {"fp32": fp32, "int8": int8}
    for name, precision, made in (
        ("cpu", "fp32", cpu_variant_of(fp32, decibels_behind(SPEC), slower_too=True)),
        (
            "cpu-int8",
            "int8",
            cpu_int8_variant_of(fp32, int8, sounds(), decibels_behind(SPEC), slower_too=True),
        ),
    ):
        metadata = metadata_of(LABELS, SPEC, "logmel", precision, made.plan)
        contents[name] = file_from_onnx(made.model, metadata)
    for name, content in contents.items():
        (folder / _FILES[name]).write_bytes(content)
    variants = [load_bundle(folder / _FILES[name]).variants[0] for name in contents]
    assert [variant.name for variant in variants] == [*contents]
    if not mnn_missing():
        variants.append(_mnn(fp32, folder / _FILES["mnn"]))
    made_of = replace(load_bundle(folder / _FILES["fp32"]), variants=tuple(variants))
    write_json(folder / MANIFEST, made_of.manifest())
    return load_bundle(folder)


def _mnn(fp32: bytes, path: Path) -> Variant:
    content, origin = mnn_from_onnx(fp32)
    path.write_bytes(content)
    return Variant(
        name="mnn",
        file=path.name,
        kind="mnn",
        input="logmel",
        precision="fp32",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        stamp=origin | {"labels": list(LABELS), "frontend": SPEC.to_dict()},
    )


def main() -> None:
    for encoder in ENCODERS:
        bundle = random_bundle(encoder, Path(sys.argv[1], encoder))
        print(f"{bundle.path}: {', '.join(variant.name for variant in bundle.variants)}", flush=True)


if __name__ == "__main__":
    main()
