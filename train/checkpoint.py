"""Checkpoints: safetensors and a JSON that lists them with their hashes; no pickle anywhere.

    <folder>/checkpoint.json                       what is valid; replaced atomically, last
    <folder>/weights-<epoch>.safetensors           encoder, head, projector; RUWL's c as `ruwl.c`
    <folder>/optimizer-<epoch>.safetensors         AdamW's moments; only in `last`

New files have new names, so the JSON always points to whole ones, whenever a save is interrupted.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..runtime.errors import ModelError
from ..runtime.files import atomic_path, sha256_of, write_json

POINTER: Final = "checkpoint.json"
SCHEMA: Final = 1

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What checkpoint.json says beside the tensors."""

    epoch: int  # epochs done
    step: int  # optimiser steps done
    ccc: float  # mean validation CCC of this epoch (challenge metric)
    per_target: dict[str, float]
    labels: list[str]
    config: dict[str, Any]  # the whole Config
    versions: dict[str, str]


def save_checkpoint(folder: Path, info: CheckpointInfo, tensors: Mapping[str, Tensors]) -> None:
    """`tensors` {"weights": {...}, "optimizer": {...}}, each becomes one file; then all other files are removed.

    Those are the checkpoint before and what a killed save left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, content in tensors.items():
        path = folder / f"{kind}-{info.epoch:04d}.safetensors"
        with atomic_path(path) as temporary:
            save_file({name: tensor.detach().contiguous().cpu() for name, tensor in content.items()}, temporary)
        files[kind] = {"file": path.name, "sha256": sha256_of(path), "size": path.stat().st_size}
    write_json(folder / POINTER, {"schema": SCHEMA, **asdict(info), "files": files})
    current = {POINTER, *(entry["file"] for entry in files.values())}
    for old in folder.iterdir():
        if old.name not in current:
            old.unlink()


def read_info(folder: Path) -> CheckpointInfo:
    """The JSON alone. Raises ModelError where there is no checkpoint, or none of ours."""
    return _info(_document(folder))


def load_checkpoint(folder: Path, *kinds: str) -> tuple[CheckpointInfo, dict[str, Tensors]]:
    """The kinds of tensors asked for, on the CPU, once their hashes agree. Raises ModelError."""
    document = _document(folder)
    return _info(document), {kind: _load_checked(folder, document["files"], kind) for kind in kinds}


def _document(folder: Path) -> dict[str, Any]:
    path = folder / POINTER
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} | {error.strerror} | expected a checkpoint of rrtn train | train first") from error
    except ValueError as error:
        raise ModelError(f"{path} | {error} | expected JSON | restore the file, or train again") from error
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise ModelError(f"{path} | schema {found!r} | this rrtn reads schema {SCHEMA} | update rrtn")
    if lost := {"files", *CheckpointInfo.__dataclass_fields__} - document.keys():
        raise ModelError(f"{path} | no {', '.join(sorted(lost))} | the file was changed | use another checkpoint")
    return document


def _info(document: dict[str, Any]) -> CheckpointInfo:
    return CheckpointInfo(**{name: document[name] for name in CheckpointInfo.__dataclass_fields__})


def _load_checked(folder: Path, files: dict[str, Any], kind: str) -> Tensors:
    if kind not in files:
        raise ModelError(f"{folder / POINTER} | lists no {kind} | lists {', '.join(files)} | use checkpoints/last")
    path = folder / files[kind]["file"]
    if not path.is_file() or (found := sha256_of(path)) != files[kind]["sha256"]:
        came = f"sha256 {found[:12]}" if path.is_file() else "not there"
        wanted = files[kind]["sha256"][:12]
        raise ModelError(f"{path} | {came} | {POINTER} lists {wanted} | the file was changed: use another checkpoint")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} | {error} | expected safetensors | use another checkpoint") from error
