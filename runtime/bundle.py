"""The deployable model: a folder with bundle.json and its variants, or a bare .onnx of ours."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .errors import ModelError
from .onnx_file import check_onnx, check_seal, onnx_metadata
from .spec import FrontendSpec, InputKind

SCHEMA: Final = 1
MANIFEST: Final = "bundle.json"
METADATA_KEY: Final = "rrtn"  # one JSON document under this key of the ONNX metadata_props

_MALFORMED: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)  # JSON, but not of the form that we write


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One file of a bundle: the same model in another form."""

    name: str  # what --require and messages call it: fp32, waveform, trt
    file: str
    kind: Literal["onnx", "engine"]
    input: InputKind  # log_mel [B, 1, T, M] or waveform [B, N]
    precision: str
    sha256: str
    size: int  # bytes
    parity: dict[str, Any] | None = None  # against PyTorch; None where it could not run
    stamp: dict[str, Any] | None = None  # engines: what built it, for which GPUs, from which ONNX
    plan: dict[str, Any] | None = (
        None  # of the variant cpu: its convolutions, and how fast it was on which processor
    )


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a model needs to be used: K labels, the frontend, the variants, and where it comes from."""

    path: Path  # the folder
    labels: tuple[str, ...]
    spec: FrontendSpec
    variants: tuple[Variant, ...]
    provenance: dict[str, Any]

    def variant(self, name: str) -> Variant | None:
        """By name; None where the bundle has no such variant."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def read(self, variant: Variant) -> bytes:
        """The variant's file, whole, once its hash agrees with the bundle and, for ONNX, nothing lies
        outside of it.

        Raises ModelError otherwise. No runtime gets a model that has not come through here.
        """
        path = self.path / variant.file
        content = self._content(variant)
        digest = hashlib.sha256(content).hexdigest()
        if digest != variant.sha256:
            raise ModelError(
                f"{path} | sha256 {digest[:12]}, {len(content)} bytes | {MANIFEST} lists {variant.sha256[:12]}, "
                f"{variant.size} bytes | the file was changed or cut: export again"
            )
        if variant.kind == "onnx":
            check_onnx(content, str(path))
        return content

    def _content(self, variant: Variant) -> bytes:
        return _read(self.path / variant.file)

    def manifest(self) -> dict[str, Any]:
        """The content of bundle.json."""
        return {
            "schema": SCHEMA,
            "labels": list(self.labels),
            "frontend": self.spec.to_dict(),
            "provenance": self.provenance,
            "variants": [asdict(variant) for variant in self.variants],
        }


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """A bundle folder, its bundle.json, or a bare .onnx that `rrtn export` wrote. Raises ModelError."""
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{path} | not there | expected a bundle folder or an .onnx of ours | run: rrtn export"
        )
    return _from_manifest(path) if path.name == MANIFEST else _from_onnx(path)


def metadata_of(
    labels: tuple[str, ...],
    spec: FrontendSpec,
    input_kind: InputKind,
    precision: str,
    plan: dict[str, Any] | None = None,
) -> dict[str, str]:
    """What goes into an ONNX file's metadata_props: all that scoring needs beside the graph."""
    document = {
        "schema": SCHEMA,
        "labels": list(labels),
        "frontend": spec.to_dict(),
        "input": input_kind,
        "precision": precision,
        **({"plan": plan} if plan else {}),
    }
    return {METADATA_KEY: json.dumps(document)}


def newest_run(*, having: str = "config.toml", runs: Path = Path("runs")) -> Path | None:
    """The run under `runs` whose file `having` was written last."""
    found = [path for path in runs.glob("*") if (path / having).is_file()]
    return max(found, key=lambda run: (run / having).stat().st_mtime_ns, default=None)


def _from_manifest(path: Path) -> Bundle:
    try:
        document = json.loads(path.read_bytes())
        _check_schema(path, document["schema"])
        return Bundle(
            path=path.parent,
            labels=tuple(document["labels"]),
            spec=FrontendSpec.from_dict(document["frontend"]),
            variants=tuple(_inside(path, Variant(**fields)) for fields in document["variants"]),
            provenance=document["provenance"],
        )
    except _MALFORMED as error:
        raise ModelError(f"{path} | {error!r} | expected what `rrtn export` writes | export again") from error


def _from_onnx(path: Path) -> Bundle:
    content = _read(path)
    metadata = onnx_metadata(content, str(path))
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path} | no rrtn metadata in it | expected an .onnx that `rrtn export` wrote | export again"
        )
    check_seal(content, str(path))  # no manifest lists its hash
    try:
        document = json.loads(metadata[METADATA_KEY])
        _check_schema(path, document["schema"])
        plan = document.get("plan")
        variant = Variant(
            name="cpu"
            if plan
            else document["precision"]
            if document["input"] == "logmel"
            else document["input"],
            file=path.name,
            kind="onnx",
            input=document["input"],
            precision=document["precision"],
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            plan=plan,
        )
        return Bundle(
            path=path.parent,
            labels=tuple(document["labels"]),
            spec=FrontendSpec.from_dict(document["frontend"]),
            variants=(variant,),
            provenance={},
        )
    except _MALFORMED as error:
        raise ModelError(
            f"{path} | {error!r} in its metadata | expected what `rrtn export` writes | export again"
        ) from error


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
        raise ModelError(f"{path} | not a regular file | expected what `rrtn export` writes | export again")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} | {error.strerror} | expected what `rrtn export` writes | export again"
        ) from error


def _check_schema(path: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise ModelError(
            f"{path} | schema {schema!r} | this rrtn reads schema {SCHEMA} | export again, or update rrtn"
        )


def _inside(path: Path, variant: Variant) -> Variant:
    if variant.file in ("", "..") or Path(variant.file).name != variant.file:
        raise ModelError(
            f"{path} | variant file {variant.file!r} | expected a plain file name | export again"
        )
    return variant
