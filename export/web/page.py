"""A bundle's model as a page: a folder for any file server, or one HTML file.

    DIR/index.html, *.js, style.css        the page; all that it loads lies beside it
    DIR/model.json, model.onnx.gz          the model, and what the page says about it
    DIR/ort*.{mjs,wasm.gz}                 onnxruntime-web, with LICENSE and ThirdPartyNotices.txt
    DIR/rrtn.json                          what was written here, with hashes

K labels.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ... import __version__
from ...runtime.bundle import Bundle, Variant
from ...runtime.errors import ModelError
from ...runtime.system.files import write_bytes, write_output
from ...runtime.tables.outputs import check_new
from ...runtime.tables.rows import score_columns
from ...runtime.text import counted
from ..written_folder import check_rewritable, rewritten
from .one_file import joined_page

OPTION: Final = "--web"
# The first of these that the bundle has. Each takes 16 kHz samples, and does all else inside the graph.
VARIANTS: Final = ("samples-int8", "samples")
_MARK: Final = b'content="rrtn export --web"'  # of a page of ours
_ZIPPED: Final = (".wasm", ".onnx")  # most file servers would send them as they are
_HOLDS: Final = "a page of rrtn export --web and nothing else"


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    path: Path
    variant: Variant  # that it scores with
    size: int  # bytes, of all its files

    @property
    def is_file(self) -> bool:
        """True where it is one file, which opens without a server."""
        return _is_file(self.path)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"path": str(self.path), "variant": self.variant.name, "size": self.size}


def page_from_bundle(bundle: Bundle, target: Path, not_made: Mapping[str, str] | None = None) -> Page:
    """Writes a folder, or one HTML file where `target` ends in .html.

    `not_made` has the variants that the export left out, with the reason, for the error.

    It replaces a page that rrtn wrote, and nothing else. Raises ModelError where the bundle has no variant
    for it, ConfigError where the place is taken.
    """
    check_page_place(target)
    variant = _variant(bundle, not_made or {})
    files = {
        **_data_files(),
        "model.json": json.dumps(_description(bundle, variant), indent=1).encode(),
        "model.onnx": bundle.read(variant),
    }
    content = dict(_zipped(name, files[name]) for name in sorted(files))
    if _is_file(target):
        page = joined_page(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_output(target, page)
        return Page(target, variant, len(page))
    with rewritten(target, OPTION, _HOLDS) as staging:
        for name, one in content.items():
            write_bytes(staging / name, one)
    return Page(target, variant, sum(map(len, content.values())))


def check_page_place(target: Path) -> None:
    """Raises ConfigError or ModelError where `target` is neither free nor a page of ours."""
    if _is_file(target):
        if target.parent.is_dir():
            check_new(target, f"{OPTION} {target}", mark=_MARK)
    else:
        check_rewritable(target, OPTION, _HOLDS)


def _is_file(target: Path) -> bool:
    return target.suffix.lower() in (".html", ".htm")


def _variant(bundle: Bundle, not_made: Mapping[str, str]) -> Variant:
    if found := [variant for name in VARIANTS if (variant := bundle.variant(name))]:
        return found[0]
    reasons = "; ".join(f"{name}: {not_made[name]}" for name in VARIANTS if name in not_made)
    raise ModelError(
        OPTION,
        reasons or f"{bundle.path} has no variant that takes samples",
        wanted=f"a bundle with one of {', '.join(VARIANTS)}",
        fix="rrtn export RUN --web, of a run whose model can have one",
    )


def _data_files() -> dict[str, bytes]:
    """The files of the package's folders page/ and onnxruntime/, by name."""
    here = resources.files(__package__)
    return {
        file.name: file.read_bytes()
        for folder in ("page", "onnxruntime")
        for file in (here / folder).iterdir()
        if file.is_file()
    }


def _zipped(name: str, content: bytes) -> tuple[str, bytes]:
    """Large files are zipped, the same way each time."""
    return (f"{name}.gz", gzip.compress(content, 6, mtime=0)) if name.endswith(_ZIPPED) else (name, content)


def _description(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    """What the page says about the model. Names go into it as data; the page sets them as text alone."""
    return {
        "title": Path(bundle.provenance.get("run", "")).name or "Model",
        "about": _about(bundle),
        "labels": bundle.labels,
        "columns": score_columns(bundle.labels),
        "meaning": bundle.meaning.to_dict() if bundle.meaning else None,
        "frontend": bundle.spec.to_dict(),
        "variant": variant.name,
        "sha256": variant.sha256,
        "version": f"rrtn {__version__}",
    }


def _about(bundle: Bundle) -> str:
    parts = [bundle.provenance.get("encoder", ""), counted(len(bundle.labels), "score")]
    if ccc := bundle.provenance.get("val_ccc"):
        parts.append(f"validation CCC {ccc:z.3f}")
    return ", ".join(filter(None, parts))
