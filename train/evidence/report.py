"""One page about a run, or about several on the same data: self-contained HTML, no network, no script.

n clips, T frames, M mels, K targets.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch

from ...runtime.arrays import Int16, waveform_from_samples
from ...runtime.bundle import MANIFEST, load_bundle
from ...runtime.files import write_bytes
from ..checkpoint import load_checkpoint
from ..config import Config, config_from_dict
from ..data.data_set import read_data
from ..data.device_clips import SplitClips, split_clips
from ..method.frontend import LogMel
from ..method.losses import TERMS
from ..method.views import mask_draws, masked_view
from ..plan import data_folder
from ..predict import mel_mean
from ..run_folder import RunFolder
from .charts import interval_chart, line_chart, scatter, spectrogram
from .evaluate import Evaluation, evaluate, runs_of_seeds

CLIPS: Final = 4  # shown: the best and the worst two by their error
MEASURED: Final = "bench.json"  # beside bundle.json: what `rrtn bench --json` printed

_LOSSES: Final = (
    ("loss", "weighted sum"),
    *zip(TERMS, ("CCC loss", "CCC loss, masked", "Barlow Twins"), strict=True),
)
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1180px; padding: 0 16px 48px; }
h1 { margin-bottom: 0; } h2 { border-bottom: 1px solid #ccc; margin-top: 40px; } h3 { margin: 8px 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
figure { margin: 0; } figcaption { font-size: 14px; color: #555; } svg, img.mel, audio { width: 100%; }
img.mel { height: 110px; image-rendering: pixelated; border: 1px solid #ccc; box-sizing: border-box; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 3px 10px; text-align: right; }
th:first-child, td:first-child { text-align: left; } tbody tr:nth-child(odd) { background: #f4f4f4; }
pre { background: #f4f4f4; padding: 12px; overflow-x: auto; font-size: 13px; } .note { color: #555; }
@media print { h2 { break-after: avoid; } figure, table { break-inside: avoid; } audio { display: none; } }
"""


def report(runs: Sequence[Path], *, out: Path | None = None) -> Path:
    """Writes the page to `out` (default: report.html in the first run); -> its path. The others are
    compared with the first.

    Of a folder of seeds, metrics are means; losses, clips, export and settings are those of its
    first run. Raises what `evaluate` raises.
    """
    first, *others = runs
    evaluation = evaluate(first, ridge=True, others=others)
    members = [(run, runs_of_seeds(run)) for run in runs]
    shown = members[0][1][0]
    info, _ = load_checkpoint(RunFolder(shown).best, "weights")
    config = config_from_dict(info.config, source=str(shown))
    histories = {_name(run, one): _history(one) for run, ones in members for one in ones}
    sections = [
        _summary(first, config, evaluation),
        _training(histories),
        _evaluation(evaluation),
        _compared(evaluation),
        _export(RunFolder(shown).export),
        _clips(config, evaluation),
        _provenance(shown, info.versions),
    ]
    title = html.escape(f"{first.name}: {config.model.encoder}, {config.model.method}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{''.join(sections)}</body></html>\n"
    )
    target = out or RunFolder(first).report
    write_bytes(target, page.encode())
    return target


def _name(run: Path, one: Path) -> str:
    """Of a run, or of one in a folder of seeds."""
    return run.name if one == run else f"{run.name}/{one.name}"


def _history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunFolder(run).history.read_text().splitlines()]


def _summary(run: Path, config: Config, evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    ridge = (
        ""
        if evaluation.ridge is None
        else f"; a ridge regression on mel statistics reaches {evaluation.ridge.mean():.3f}"
    )
    epochs = ", ".join(map(str, evaluation.epochs))
    seeds = (
        f"{len(evaluation.seeds)} seeds, means over them"
        if len(evaluation.seeds) > 1
        else f"seed {config.seed}"
    )
    return (
        f'<p class="note">{html.escape(str(run))}, best epoch {epochs} of {config.optim.epochs}, {seeds}; '
        f"data {html.escape(str(data_folder(config)))}</p>"
        f"<p>Mean CCC on Val: <b>{evaluation.challenge.mean():.3f}</b> (95% {low[-1]:.3f} to {high[-1]:.3f}, resampling "
        f"{evaluation.speakers} speakers; {evaluation.clips} clips){ridge}.</p>"
    )


def _training(histories: dict[str, list[dict[str, Any]]]) -> str:
    records = next(iter(histories.values()))
    epochs = [record["epoch"] for record in records]
    targets = records[0]["val_ccc_per_target"]
    charts = [
        (
            "CCC on Val of each target",
            {t: [record["val_ccc_per_target"][t] for record in records] for t in targets},
            "CCC",
        ),
        *(
            (text, {text: [record[name] for record in records]}, "loss")
            for name, text in _LOSSES
            if _has(records, name)
        ),
    ]
    if _has(records, "weights"):
        weights = np.array([record["weights"] for record in records]).T
        names = ("CCC", "CCC, masked", "Barlow Twins")
        charts.append(
            (
                "RUWL's weights (log10)",
                {n: np.log10(w) for n, w in zip(names, weights, strict=False)},
                "log10 weight",
            )
        )
    figures = [
        _figure(line_chart(lines, x=epochs, x_label="epoch", y_label=unit), text)
        for text, lines, unit in charts
    ]
    if len(histories) > 1:
        shortest = min(len(history) for history in histories.values())
        means = {
            name: [record["val_ccc"] for record in history[:shortest]] for name, history in histories.items()
        }
        figures.append(
            _figure(
                line_chart(means, x=epochs[:shortest], x_label="epoch", y_label="mean CCC"),
                "Mean CCC on Val of each run",
            )
        )
    return f'<h2>Training</h2><div class="charts">{"".join(figures)}</div>'


def _has(records: Sequence[dict[str, Any]], name: str) -> bool:
    return all(record.get(name) is not None for record in records)


def _evaluation(evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    names = [*evaluation.targets, "mean"]
    values = np.append(evaluation.challenge, evaluation.challenge.mean())
    chart = interval_chart(names, values, low, high, x_label="CCC (challenge), 95% over speakers")
    columns = {
        "CCC": evaluation.challenge,
        "biased": evaluation.biased,
        "Pearson": evaluation.pearson,
        "MAE": evaluation.mae,
    }
    if evaluation.ridge is not None:
        columns["ridge CCC"] = evaluation.ridge
    rows = [
        [name, *(f"{np.append(v, v.mean())[k]:.3f}" for v in columns.values())]
        for k, name in enumerate(names)
    ]
    predictions = evaluation.predictions
    scatters = [
        _figure(
            scatter(predictions.rated[:, k], predictions.scores[:, k], x_label="rated", y_label="predicted"),
            target,
        )
        for k, target in enumerate(evaluation.targets)
    ]
    table = f'<div class="wide">{_table(["target", *columns], rows)}</div>'
    return (
        f'<h2>Evaluation</h2><div class="charts">{_figure(chart, "CCC of each target on Val")}{table}</div>'
        f'<h3>Predicted against rated</h3><div class="charts small">{"".join(scatters)}</div>'
    )


def _compared(evaluation: Evaluation) -> str:
    parts = []
    for other, comparison in evaluation.compared.items():
        rows = [
            [
                name,
                f"{comparison.difference[k]:+.3f}",
                f"{comparison.low[k]:+.3f} to {comparison.high[k]:+.3f}",
                f"{comparison.p_holm[k]:.4f}",
                comparison.verdict(k),
            ]
            for k, name in enumerate([*evaluation.targets, "mean"])
        ]
        table = _table(["target", "difference", "95%", "p (Holm)", ""], rows)
        parts.append(
            f"<h3>minus {html.escape(other)}, {comparison.speakers} speakers</h3><div class='wide'>{table}</div>"
        )
    return f"<h2>Compared</h2>{''.join(parts)}" if parts else ""


def _export(folder: Path) -> str:
    if not (folder / MANIFEST).is_file():
        return "<h2>Export</h2><p class='note'>Not exported yet: rrtn export --trt</p>"
    rows = [
        [
            variant.name,
            variant.file,
            variant.precision,
            f"{variant.size / 1e6:.1f}",
            f"{variant.parity['max_abs']:.1e}" if variant.parity else "not run here",
            f"{variant.parity['ccc_change']:+.4f}"
            if variant.parity and variant.parity.get("ccc_change") is not None
            else "",
        ]
        for variant in load_bundle(folder).variants
    ]
    header = ["variant", "file", "precision", "MB", "largest difference to PyTorch", "change of CCC"]
    return f"<h2>Export</h2><div class='wide'>{_table(header, rows)}</div>{_latency(folder / MEASURED)}"


def _latency(path: Path) -> str:
    if not path.is_file():
        return f"<p class='note'>No latencies: rrtn bench --json &gt; {html.escape(str(path))}</p>"
    document = json.loads(path.read_text())
    rows = [
        [
            f"{row['variant']} on {row['device']}",
            f"{row['at_once']} x {row['batch']}",
            *(f"{row[name]:.2f}" for name in ("p50", "p90", "highest")),
            f"{row['clips_per_second']:.1f}",
            str(row["n"]),
        ]
        for row in document["measurements"]
    ]
    machine = document["machine"]
    table = _table(["variant", "batch", "p50 ms", "p90 ms", "max ms", "clips/s", "n"], rows)
    return f"<h3>Speed on {html.escape(machine['cpu'])}, {machine['cores']} cores</h3><div class='wide'>{table}</div>"


def _clips(config: Config, evaluation: Evaluation) -> str:
    data = read_data(data_folder(config), evaluation.targets)
    split = split_clips(data, "Val", config.frontend, torch.device("cpu"))
    errors = np.abs(evaluation.predictions.scores - evaluation.predictions.rated).mean(1)
    order = np.argsort(errors)
    shown = list(dict.fromkeys([*order[: CLIPS // 2].tolist(), *order[-(CLIPS // 2) :].tolist()]))
    fill = mel_mean(split, LogMel(config.frontend))
    cards = "".join(_clip(config, evaluation, split, fill, sample) for sample in shown)
    return f'<h2>Clips: the best and the worst predicted</h2><div class="charts small">{cards}</div>'


def _clip(config: Config, evaluation: Evaluation, split: SplitClips, fill: torch.Tensor, sample: int) -> str:
    index = np.array([sample])
    clean = LogMel(config.frontend)(*split.clips(index, np.zeros_like(index)))
    masked = masked_view(clean, fill, mask_draws(config.seed, 1, index, config.augment), config.augment)
    predictions = evaluation.predictions
    rows = [
        [target, f"{predictions.rated[sample, k]:.2f}", f"{predictions.scores[sample, k]:.2f}"]
        for k, target in enumerate(evaluation.targets)
    ]
    name = html.escape(predictions.file_ids[sample])
    return (
        f"<figure><h3>{name}</h3>{_player(split.store.waveform(sample), config.frontend.sampling_rate)}"
        f"{spectrogram(clean[0, 0].numpy())}{spectrogram(masked[0, 0].numpy())}"
        f"<figcaption>log-Mel of {config.frontend.clip_seconds:g} s, -100 to 20 dB, 50 Hz to 8 kHz upwards: the clean view, "
        f"and the masked one of epoch 1</figcaption>{_table(['target', 'rated', 'predicted'], rows)}</figure>"
    )


def _player(samples: Int16, rate: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform_from_samples(np.asarray(samples)), rate, format="WAV", subtype="PCM_16")
    return (
        f'<audio controls src="data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"></audio>'
    )


def _provenance(run: Path, versions: dict[str, str]) -> str:
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    settings = html.escape(RunFolder(run).config.read_text())
    return f"<h2>Provenance</h2><p>Trained with {html.escape(made)}.</p><pre>{settings}</pre>"


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
