"""What `rrtn bench` says: the document of `--json`, the lines below its table, and the chart."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import onnxruntime

from .. import __version__
from .backends.engine_stamp import driver_version
from .backends.variant_rows import difference_text
from .bench import Ceiling, Measurement, Preparation
from .bundle import Bundle
from .system.cpus import cpu_kind, usable_cpus
from .text import counted, in_html

CHART_MARK: Final = b"<desc>rrtn bench</desc>"  # near the start of a chart
_BAR, _ROW = 420, 24  # pixels: length of the longest bar, distance between two bars


def bench_document(
    bundle: Bundle,
    results: Sequence[Measurement],
    limits: Ceiling,
    before: Preparation,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """The document of `rrtn bench --json`; `lines` stand below the table on a terminal."""
    flops = bundle.provenance.get("flops_per_clip")
    here = machine()
    return {
        "bundle": str(bundle.path),
        "checkpoint_sha256": bundle.provenance.get("checkpoint_sha256"),
        "files": {variant.name: variant.sha256 for variant in bundle.variants},
        "machine": here,
        "ceiling": asdict(limits),
        "preparation": asdict(before),
        "flops_per_clip": flops,
        "measurements": [asdict(result) for result in results],
        "not_run": reasons,
        "lines": [
            _machine_line(here, limits),
            _clip_line(flops, before),
            *_accuracy_lines(bundle),
            *(f"{name} did not run: {reason}" for name, reason in reasons.items()),
        ],
    }


def _machine_text(here: dict[str, Any]) -> str:
    return f"{here['cpu']}, {counted(here['cores'], 'core')}"


def _machine_line(here: dict[str, Any], limits: Ceiling) -> str:
    sgemm, copy = f"{limits.sgemm / 1e9:.0f} GFLOP/s", f"{limits.copy / 1e9:.1f} GB/s"
    return f"{_machine_text(here)}: sgemm {sgemm}, copy {copy}"


def _clip_line(flops: int | None, before: Preparation) -> str:
    model = f"a clip: {flops / 1e9:.2f} GFLOP in the model; " if flops else ""
    reading = f"reading {before.decode:.2f} ms (44.1 kHz stereo)"
    return f"{model}before it, on one core: {reading}, log-Mel {before.log_mel:.2f} ms"


def _accuracy_lines(bundle: Bundle) -> list[str]:
    figures = {variant.name: variant.parity for variant in bundle.variants}
    known = {name: difference_text(parity) for name, parity in figures.items() if parity}
    found = [f"{name} max {largest}" for name, largest in known.items() if largest]
    return [f"against PyTorch: {', '.join(found)}"] if found else []


def machine() -> dict[str, Any]:
    """The machine and the versions, without which a figure means nothing."""
    return {
        **cpu_kind(),
        "cores": usable_cpus(),
        "python": platform.python_version(),
        "rrtn": __version__,
        "onnxruntime": onnxruntime.__version__,
        "driver": driver_version(),
    }


def svg_chart(document: dict[str, Any]) -> str:
    """Clips a second of each measurement as horizontal bars with numbers, readable in greyscale."""
    rows = document["measurements"]
    largest = max(row["clips_per_second"] for row in rows)
    title = f'<text x="8" y="20">clips/s, {in_html(_machine_text(document["machine"]))}</text>'
    bars = [_svg_bar(row, 34 + _ROW * i, row["clips_per_second"] / largest) for i, row in enumerate(rows)]
    size = f'width="720" height="{46 + _ROW * len(rows)}"'
    font = 'font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{CHART_MARK.decode()}'
    return f"{head}{title}{''.join(bars)}</svg>\n"


def _svg_bar(row: dict[str, Any], y: int, share: float) -> str:
    name = in_html(f"{row['variant']} {row['device']} {row['at_once']} x {row['batch']}")
    width = _BAR * share
    return (
        f'<text x="188" y="{y + 14}" text-anchor="end">{name}</text>'
        f'<rect x="196" y="{y}" width="{width:.1f}" height="18" fill="#33658a"/>'
        f'<text x="{202 + width:.1f}" y="{y + 14}">{row["clips_per_second"]:.1f}</text>'
    )
