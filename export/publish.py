"""From a run to a bundle: export, gate, and only then the folder that others load."""

import datetime
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from .. import __version__
from ..runtime.audio import waveform_from_samples
from ..runtime.bundle import MANIFEST, Bundle, InputKind, Variant
from ..runtime.errors import DataError, ModelError
from ..runtime.files import fsync, sha256_of, write_bytes, write_json
from ..runtime.frontend import Float32
from ..runtime.ort_backend import ort_backend_from_bundle
from ..train.checkpoint import CheckpointInfo, load_checkpoint
from ..train.clips import clip_store
from ..train.config import Config, config_from_dict
from ..train.data import read_data
from ..train.evaluate import network_from_weights
from ..train.model import TwinsNetwork
from ..train.plan import data_folder
from .engine import INSTALL_HINT, engine_from_onnx, installed_flavour
from .graph import onnx_from_network
from .parity import FP32_LIMIT, check_parity, probe_clips, torch_scores

PROBE_CLIPS: Final = 48
FILES: Final[dict[InputKind, tuple[str, str]]] = {
    "logmel": ("fp32", "model.onnx"),
    "waveform": ("waveform", "model.waveform.onnx"),
}
ENGINE: Final = ("trt", "model.engine")
_ZERO_DB: Final = "frontend.pad is zero_db, and a graph that takes waveforms cannot know where a short recording ends"


@dataclass(frozen=True)
class Published:
    """The bundle, and what could not be made with the reason."""

    bundle: Bundle
    skipped: dict[str, str]


def publish(run: Path, *, out: Path | None = None, trt: bool = False, require: Sequence[str] = ()) -> Published:
    """Exports the best checkpoint of `run` to `out` (default: run/export), replacing a bundle that is there.

    Every ONNX file passes the parity gate in a folder beside, before anything is replaced. Raises ModelError for a gate
    that fails, a broken checkpoint, or a required variant that could not be made.
    """
    out = out or run / "export"
    _check_replaceable(out)
    checkpoint = run / "checkpoints/best"
    info, tensors = load_checkpoint(checkpoint, "weights")
    config = config_from_dict(info.config, source=str(checkpoint))
    network = network_from_weights(config, tensors["weights"])
    clips = probe_clips(_validation_clips(config), config.frontend)
    reference = torch_scores(network, config.frontend, clips)

    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        bundle = Bundle(
            path=staging,
            labels=tuple(info.labels),
            spec=config.frontend,
            variants=(),
            provenance=_provenance(run, checkpoint, info, config),
        )
        skipped = {"waveform": _ZERO_DB} if bundle.spec.pad == "zero_db" else {}
        for input_kind, (name, _) in FILES.items():
            if name not in skipped:
                bundle = _with_onnx(bundle, network, input_kind, clips, reference, worst_to=run / "parity-worst.npz")
        if trt or ENGINE[0] in require:
            bundle, without = _with_engine(bundle)
            skipped |= without
        if missing := [name for name in require if bundle.variant(name) is None]:
            reasons = "; ".join(skipped.get(name, "no such variant") for name in missing)
            raise ModelError(f"--require {', '.join(missing)} | {reasons} | nothing was published")
        write_json(staging / MANIFEST, bundle.manifest())
        _replace_folder(out, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Published(replace(bundle, path=out), skipped)


def _with_onnx(
    bundle: Bundle,
    network: TwinsNetwork,
    input_kind: InputKind,
    clips: Float32,
    reference: Float32,
    *,
    worst_to: Path,
) -> Bundle:
    name, file = FILES[input_kind]
    content = onnx_from_network(network, bundle.spec, bundle.labels, input_kind)
    variant = _variant(bundle, name, file, content, kind="onnx", input=input_kind, precision="fp32")
    backend = ort_backend_from_bundle(bundle, variant, device="cpu")
    parity = check_parity(backend, bundle.spec, clips, reference, limit=FP32_LIMIT, worst_to=worst_to)
    return replace(bundle, variants=(*bundle.variants, replace(variant, parity=parity.to_dict())))


def _with_engine(bundle: Bundle) -> tuple[Bundle, dict[str, str]]:
    """Built from the waveform graph: on a GPU the log-Mel belongs there too."""
    name, file = ENGINE
    source, flavour = bundle.variant("waveform"), installed_flavour()
    if source is None:
        return bundle, {name: _ZERO_DB}
    if flavour is None:
        return bundle, {name: f"no TensorRT is installed here: {INSTALL_HINT}"}
    plan, stamp = engine_from_onnx(bundle.read(source), flavour)
    variant = _variant(bundle, name, file, plan, kind="engine", input="waveform", precision="fp32", stamp=stamp.to_dict())
    return replace(bundle, variants=(*bundle.variants, variant)), {}


def _variant(bundle: Bundle, name: str, file: str, content: bytes, **fields: Any) -> Variant:
    """Writes the file into the bundle's folder and describes it."""
    write_bytes(bundle.path / file, content)
    return Variant(name=name, file=file, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **fields)


def _validation_clips(config: Config) -> Float32:
    """[n, N] in [-1, 1], spread over the validation split that the run was selected on."""
    try:
        split = read_data(data_folder(config), config.data.targets).splits["Val"]
    except DataError as error:
        raise DataError(f"{error} | the parity gate needs the run's validation clips") from error
    step = max(1, len(split.clips) // PROBE_CLIPS)
    paths = [clip.path for clip in split.clips[::step][:PROBE_CLIPS]]
    store = clip_store(paths, config.frontend, label="decode probe clips")
    indices = np.arange(len(store))
    return waveform_from_samples(store.clips(indices, np.zeros_like(indices), config.frontend))


def _provenance(run: Path, checkpoint: Path, info: CheckpointInfo, config: Config) -> dict[str, Any]:
    return {
        "run": str(run),
        "encoder": config.model.encoder,
        "method": config.model.method,
        "epoch": info.epoch,
        "val_ccc": info.ccc,
        "val_ccc_per_target": info.per_target,
        "checkpoint_sha256": sha256_of(checkpoint / "checkpoint.json"),
        "versions": {**info.versions, "exported_by": __version__},
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _check_replaceable(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ModelError(f"{out} | a link or a file | expected a folder, or nothing | choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ModelError(f"{out} | holds other files | expected a bundle, or nothing | choose another --out")


def _replace_folder(out: Path, staging: Path) -> None:
    """The old bundle stays whole until the new one is whole beside it."""
    fsync(staging)
    staging.chmod(0o755)
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".old"))
        out.replace(old / "bundle")
        staging.replace(out)
        shutil.rmtree(old)
    else:
        staging.replace(out)
    fsync(out.parent)
