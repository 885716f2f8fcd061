"""One page about a run, or about several on the same data: self-contained HTML, no network, no
script.

This module says what is on the page, as the plain data of report_page.py. The template
templates/report.html.j2 makes HTML of it and escapes all text. Only the drawings of charts.py are taken as
they are.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ...runtime.arrays import Float64
from ...runtime.backends.variant_rows import HEADER, cells_of_variant, refusals_of_bundle
from ...runtime.bundle import MANIFEST, Bundle, load_bundle
from ...runtime.documents import Count, converted, parsed
from ...runtime.errors import DataError, ModelError
from ...runtime.system.files import read_regular, write_output, write_refused
from ...runtime.system.host import quoted
from ...runtime.text import counted, difference_text, interval_text, number_text, printable_lines
from ..checkpoint import Record, metric_of_record, read_info, score_of
from ..config import Config
from ..config_file import config_from_toml
from ..method.choices import CLASS_TERM, TERMS
from ..method.columns import UNIT
from ..method.tasks import METRIC_NAMES
from ..plan import data_folder
from ..run_folder import RunFolder
from .best_checkpoint import config_of_checkpoint
from .charts import SPECTROGRAM_DB, interval_chart, line_chart, scatter
from .evaluate import evaluate, runs_of_seeds
from .evaluation import Evaluation
from .fold_runs import folds_in
from .report_clips import clips_of_evaluation, rule_of_errors
from .report_page import Compared, Confusion, Export, Figure, Quality, ShownTable, Summary, Training
from .significance import FEWEST_SPEAKERS, names_with_mean
from .trained_run import DATA_CHANGED, config_of_all_folds

MEASURED: Final = "bench.json"  # beside bundle.json: what `rrtn bench --json` printed

_CHOSEN: Final = "chosen on these clips: on others the {metric} is likely lower"
_CROSSED: Final = "the last one, not chosen; each clip is predicted by the run that did not hear its speaker"
_FIGURES: Final = {
    "ccc": "CCC",
    "ccc_biased": "biased",
    "pearson": "Pearson",
    "mae": "MAE",
    "ridge_ccc": "ridge CCC",
}
_WEIGHTS: Final = dict(
    zip((*TERMS, CLASS_TERM), ("CCC", "CCC, masked", "Barlow Twins", "cross-entropy"), strict=True)
)
_LOSSES: Final = (("loss", "weighted sum"), *_WEIGHTS.items())


class _Measurement(TypedDict):
    variant: str
    device: str
    at_once: Count
    batch: Count
    p50: float
    p90: float
    highest: float
    clips_per_second: float
    n: Count


class _Machine(TypedDict):
    cpu: str
    cores: Count


class _Bench(TypedDict):
    # Of the bundle; absent in measurements before they were there.
    checkpoint_sha256: NotRequired[str | None]
    files: NotRequired[dict[str, str]]
    bundle: str
    machine: _Machine
    measurements: list[_Measurement]


def report(runs: Sequence[Path], *, out: Path | None = None) -> Path:
    """Writes the page to `out` (default: report.html in the first run); -> its path. The others are
    compared with the first.

    Of a folder of seeds, metrics are means; losses, clips, export and settings are those of its
    first run. Of a cross-validation, metrics and clips are those of all folds, and it has no
    export. Raises what `evaluate` raises.
    """
    first, *others = runs
    evaluation = evaluate(first, ridge=True, others=others)
    members = [(run, folds_in(run) or runs_of_seeds(run)) for run in runs]
    shown = members[0][1][0]
    info = read_info(RunFolder(shown).best)
    config = config_of_checkpoint(info, RunFolder(shown))
    if evaluation.folds:
        config = config_of_all_folds(config)
    names = names_apart([one for _, ones in members for one in ones])
    histories = {name: _history(one) for one, name in names.items()}
    page = _template().render(
        name=first.name,
        model=f"{config.model.encoder}, {config.model.method}",
        summary=_summary(first, shown, config, evaluation),
        training=_training(histories, "used" if evaluation.folds else "best", evaluation.epoch),
        quality=_quality(evaluation),
        compared=_compared(evaluation),
        export=None if evaluation.folds else _export(RunFolder(shown).export),
        export_command=f"rrtn export {quoted(shown)}",
        clips=clips_of_evaluation(config, evaluation),
        ranked_by=rule_of_errors(config.data.columns),
        clip_seconds=config.frontend.clip_seconds,
        decibels=SPECTROGRAM_DB,
        is_masked=config.model.has_second_view,
        versions=info.versions,
        settings=read_regular(RunFolder(shown).config).decode(errors="replace"),
    )
    target = out or RunFolder(first).report
    try:
        write_output(target, page.encode())
    except OSError as error:
        raise write_refused(target, error, elsewhere="name another file by --out") from error
    return target


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number_text
    return environment.get_template("report.html.j2")


def _harmless(value: object) -> object:
    """Text for the page, which autoescape then escapes. A drawing of charts.py is left as it is."""
    return value if isinstance(value, Markup | int | float) else printable_lines(value)


def names_apart(runs: Sequence[Path]) -> dict[Path, str]:
    """Each run -> the last parts of its path, as many as tell it from the others."""
    parts = {run: run.absolute().parts[1:] for run in runs}
    for count in range(1, max(map(len, parts.values()))):
        names = {run: "/".join(part[-count:]) for run, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {run: "/".join(part) for run, part in parts.items()}


def _history(run: Path) -> list[dict[str, Any]]:
    """The records of the epochs: the checkpoint's, whose hash is known, and later ones of history.jsonl.

    Raises DataError where rrtn did not write that so.
    """
    path = RunFolder(run).history
    try:
        records = [parsed(line) for line in read_regular(path).splitlines()]
        if not converted(records, list[Record]):
            raise ValueError("no epoch yet")
    except (OSError, ValueError) as error:
        came, wanted = str(error), "a line of JSON for each epoch"
        fix = f"rrtn train --resume --out {quoted(run)}"
        raise DataError(str(path), came, wanted=wanted, fix=fix) from error
    kept = _kept_history(RunFolder(run))
    return [*kept, *records[len(kept) :]]


def _kept_history(run: RunFolder) -> list[dict[str, Any]]:
    try:
        return read_info(run.last).history
    except ModelError:  # the next resume goes on from the one before
        return read_info(run.best).history


def _summary(run: Path, shown: Path, config: Config, evaluation: Evaluation) -> Summary:
    epochs = config_from_toml(RunFolder(shown).config).optim.epochs  # more than the checkpoint's on a resume
    trained, metric = len(_history(shown)), METRIC_NAMES[evaluation.metric]
    chosen = DATA_CHANGED if evaluation.data_changed else _CHOSEN.format(metric=metric)
    means = {name: float(values[-1]) for name, values in evaluation.figures.items()}
    return Summary(
        run=run,
        data=data_folder(config),
        seeds=f"{len(evaluation.seeds)} seeds, means over them"
        if len(evaluation.seeds) > 1
        else _of_one(config, evaluation),
        synthetic=evaluation.synthetic,
        epochs=", ".join(map(str, evaluation.epochs)),
        of_epochs=f"of {counted(epochs, 'epoch')}",
        judged_on=f"{evaluation.folds} folds" if evaluation.folds else "Val",
        epoch_name="Epoch" if evaluation.folds else "Best epoch",
        chosen=_CROSSED if evaluation.folds else chosen,
        unfinished=f"epoch {trained} of {epochs}, unfinished" if trained < epochs else "",
        score=evaluation.score,
        metric=metric,
        interval=_interval_text(evaluation),
        ridge=means.get("ridge_ccc"),
        mean_ccc=None if evaluation.metric == "ccc" else means["ccc"],
        clips=evaluation.clips,
        speakers=counted(evaluation.speakers, "speaker"),
    )


def _of_one(config: Config, evaluation: Evaluation) -> str:
    folds = f", {evaluation.folds} folds of speakers" if evaluation.folds else ""
    return f"seed {config.seed}{folds}"


def _interval_text(evaluation: Evaluation) -> str:
    if evaluation.metric != "ccc":
        return "its parts, and their intervals, are under Evaluation"
    if evaluation.interval is None:
        return f"no 95% interval: {evaluation.no_evidence}"
    low, high = (end[-1] for end in evaluation.interval)
    if np.isnan(low):
        return f"no 95% interval: fewer than {FEWEST_SPEAKERS} speakers have rated one of the targets"
    return f"95%: {low:z.3f} to {high:z.3f}, resampling speakers"


def _training(histories: dict[str, list[dict[str, Any]]], why: str, epoch: int) -> Training:
    """`epoch` is the one whose checkpoint is judged, and `why`: "best", or "used" where none was chosen."""
    records = next(iter(histories.values()))
    epochs = [record["epoch"] for record in records]
    charts = [
        (f"{name} on Val of each target", _of_targets(records, f"val_{name.lower()}_per_target"), name)
        for name in ("CCC", "UAR")
        if f"val_{name.lower()}_per_target" in records[0]
    ]
    if _has(records, "weights"):
        weights = np.array([record["weights"] for record in records]).T
        names = [long for term, long in _WEIGHTS.items() if term in records[0]]
        charts.append(
            (
                "RUWL's weights (log10)",
                {
                    n: np.log10(w) for n, w in zip(names, weights, strict=True) if w.all()
                },  # 0: a loss left out
                "log10 weight",
            )
        )
    charts.append(
        ("Losses, each as a share of its largest value, and the last value", _losses(records), "share")
    )
    return Training(
        [
            _curves(text, lines, epochs, unit, (f"{why}: epoch {epoch}", epoch))
            for text, lines, unit in charts
        ],
        _of_runs(histories) if len(histories) > 1 else None,
    )


def _of_targets(records: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Target -> its values over the epochs."""
    return {target: [record[name][target] for record in records] for target in records[0][name]}


def _losses(records: Sequence[dict[str, Any]]) -> dict[str, Float64]:
    """Name with the last value -> a line of at most 1: the terms differ a thousandfold."""
    lines = {}
    for name, text in _LOSSES:
        if _has(records, name):
            values = np.array([record[name] for record in records])
            form = "z.0f" if np.abs(values).max() >= 100 else "z.3f"
            lines[f"{text} {values[-1]:{form}}"] = values / (np.abs(values).max() or 1.0)
    if len(lines) == 2:  # one term, and the sum is the same
        lines.popitem()
    return lines


def _of_runs(histories: dict[str, list[dict[str, Any]]]) -> Figure:
    """Each run over its own epochs, by what its epoch was chosen by, or by CCC where that is not the same."""
    epochs = [record["epoch"] for record in max(histories.values(), key=len)]
    chosen_by = {metric_of_record(history[0]) for history in histories.values()}
    is_same = len(chosen_by) == 1
    means = {
        name: [score_of(record) if is_same else record["val_ccc"] for record in history]
        for name, history in histories.items()
    }
    metric = METRIC_NAMES[chosen_by.pop() if is_same else "ccc"]
    return _curves(f"{metric[0].upper()}{metric[1:]} on Val of each run", means, epochs, metric)


def _curves(
    caption: str,
    lines: dict[str, Any],
    epochs: list[int],
    unit: str,
    mark: tuple[str, int | None] = ("", None),
) -> Figure:
    label, epoch = mark
    drawn = partial(line_chart, lines, x=epochs, x_label="epoch", y_label=unit, mark=epoch, mark_label=label)
    return Figure(caption, drawn(), drawn(narrow=True))


def _has(records: Sequence[dict[str, Any]], name: str) -> bool:
    return all(record.get(name) is not None for record in records)


def _quality(evaluation: Evaluation) -> Quality:
    confusions = [_confusion(evaluation, j) for j in range(len(evaluation.classes))]
    if not evaluation.targets:
        return Quality(None, None, [], confusions)
    names, figures = names_with_mean(evaluation.targets), evaluation.figures
    label = "CCC (challenge), 95% over speakers" if evaluation.interval else "CCC (challenge)"
    drawn = partial(interval_chart, names, figures["ccc"], evaluation.interval, x_label=label)
    rows = [[name, *(number_text(values[k]) for values in figures.values())] for k, name in enumerate(names)]
    header = ["target", *(_FIGURES[name] for name in figures)]
    if any(count < evaluation.clips for count in evaluation.counts):
        header.append("rated clips")
        rows = [[*row, str(count)] for row, count in zip(rows, [*evaluation.counts, ""], strict=True)]
    scatters = [Figure(target, _scatter(evaluation, k)) for k, target in enumerate(evaluation.targets)]
    chart = Figure("CCC of each target on Val", drawn(), drawn(narrow=True))
    return Quality(chart, ShownTable(header, rows), scatters, confusions)


def _scatter(evaluation: Evaluation, k: int) -> Markup:
    """The clips that are rated for target `k`."""
    predictions = evaluation.predictions
    rows = ~np.isnan(predictions.rated[:, k])
    ends = evaluation.scales[k] if evaluation.scales else UNIT
    return scatter(
        predictions.rated[rows, k],
        predictions.scores[rows, k],
        x_label="rated",
        y_label="predicted",
        ends=(ends.low, ends.high),
    )


def _confusion(evaluation: Evaluation, j: int) -> Confusion:
    target, counts = evaluation.classes[j], evaluation.tables[j]
    recall = f"UAR {number_text(evaluation.uar[j]) or 'is not known: no clip has a class'}"
    low, high = evaluation.uar_intervals[j] if evaluation.uar_intervals else (np.nan, np.nan)
    if not np.isnan(low):
        recall += f", 95%: {low:z.3f} to {high:z.3f}, resampling speakers"
    rows = [[name, *map(str, row)] for name, row in zip(target.classes, counts.tolist(), strict=True)]
    return Confusion(
        target.name, recall, ShownTable(["class, below; likeliest, to the right", *target.classes], rows)
    )


def _compared(evaluation: Evaluation) -> list[Compared]:
    parts = []
    for other, comparison in evaluation.compared.items():
        rows = [
            [
                name,
                difference_text(comparison.difference[k]),
                *(
                    [
                        interval_text(comparison.low[k], comparison.high[k], "+z.3f"),
                        number_text(comparison.p_holm[k], ".4f"),
                    ]
                    if comparison.is_evidence
                    else []
                ),
                comparison.verdict(k),
            ]
            for k, name in enumerate(names_with_mean(evaluation.targets))
        ]
        evidence = ["95%", "p (Holm)"] if comparison.is_evidence else []
        table = ShownTable(["target", "difference", *evidence, "verdict"], rows, words=["verdict"])
        notes = [f"{other}: {remark}." for remark in evaluation.remarks.get(other, ())]
        if not comparison.is_evidence:
            notes.append(f"No interval and no p: {comparison.no_evidence}.")
        note = " ".join(notes)
        parts.append(Compared(other, counted(comparison.speakers, "speaker"), table, note))
    return parts


def _export(folder: Path) -> Export:
    measured = folder / MEASURED
    if not (folder / MANIFEST).is_file():
        return Export(variants=None, folder=folder, measured=measured)
    bundle = load_bundle(folder)
    refused = refusals_of_bundle(bundle)
    rows = [cells_of_variant(variant, refused[variant.name]) for variant in bundle.variants]
    variants = ShownTable(HEADER, rows, words=[name for name in HEADER if name != "MB"])
    if not measured.is_file():
        return Export(variants=variants, folder=folder, measured=measured)
    document = _measured(measured, bundle)
    there = _of_files_there(document, bundle)
    others = [name for name in _variants(document["measurements"]) if name not in _variants(there)]
    return Export(
        variants=variants,
        folder=folder,
        measured=measured,
        speeds=_speeds(there) if there else None,
        machine=document["machine"],
        others=tuple(others),
    )


def _variants(measurements: Sequence[_Measurement]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in measurements))


def _of_files_there(document: _Bench, bundle: Bundle) -> list[_Measurement]:
    """The measurements of files that the bundle still has."""
    files = {variant.name: variant.sha256 for variant in bundle.variants}
    measured = document.get("files", files)
    return [
        row
        for row in document["measurements"]
        if row["variant"] in files and measured.get(row["variant"]) == files[row["variant"]]
    ]


def _measured(path: Path, bundle: Bundle) -> _Bench:
    """What `rrtn bench --json` printed of the bundle. Raises DataError where the file is something else."""
    fix = f"rrtn bench {quoted(bundle.path)} --json > {quoted(path)}"
    try:
        document = converted(parsed(read_regular(path)), _Bench)
    except (OSError, ValueError) as error:
        raise DataError(str(path), str(error), wanted="what rrtn bench --json prints", fix=fix) from error
    checkpoint = bundle.provenance.get("checkpoint_sha256")
    if document.get("checkpoint_sha256", checkpoint) != checkpoint:
        came = f"the speeds of {document['bundle']}, of another checkpoint"
        raise DataError(str(path), came, wanted=f"those of {bundle.path}", fix=fix)
    return document


def _speeds(measurements: Sequence[_Measurement]) -> ShownTable:
    rows = [
        [
            f"{row['variant']} on {row['device']}",
            f"{row['at_once']} x {row['batch']}",
            *(f"{value:.2f}" for value in (row["p50"], row["p90"], row["highest"])),
            f"{row['clips_per_second']:.1f}",
            str(row["n"]),
        ]
        for row in measurements
    ]
    return ShownTable(["variant", "batch", "p50 ms", "p90 ms", "max ms", "clips/s", "n"], rows)
