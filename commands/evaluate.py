"""rrtn evaluate and rrtn report."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from ..runtime.text import counted, difference_text, interval_text, number_text
from .options import DataDir, Json, RunArgument, existing_run, load_torch, split_option
from .printing import Column, Table, numbers, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.evidence.evaluation import Evaluation
    from ..train.evidence.groups import Figures, GroupReport
    from ..train.evidence.significance import Comparison


def evaluate(
    run: RunArgument = None,
    data: DataDir = None,
    split: Annotated[
        str, typer.Option(help="Train, Val or Test, where it is rated.", metavar="NAME")
    ] = "Val",
    by: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Groups to look at apart: Sex, or Age:20-29,30-39,40-; may be given again.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    ridge: Annotated[bool, typer.Option(help="Show a ridge regression on mel statistics beside it.")] = True,
    compare: Annotated[
        Optional[list[Path]],
        typer.Option(help="Another run on the same data, or as many seeds.", show_default=False),
    ] = None,
    submission: Annotated[
        Optional[Path],
        typer.Option(help="Scores of the Test split as a CSV in the challenge's form.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the --submission that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the CCC of each target, with intervals over speakers.

    The clips are those of the validation split. A ridge regression on mel statistics is shown beside. RUN may
    also be a folder of runs that differ in their seed.

    --by shows CCC and bias (predicted minus rated) of groups of clips, and their differences.

    Example: rrtn evaluate runs/rrtn --compare runs/vanilla
    """
    from ..runtime.tables.outputs import check_new

    if submission:
        check_new(submission, f"--submission {submission}", overwrite=overwrite)
    found, asked = existing_run(run), split_option(split)
    load_torch("train.evidence.evaluate")
    from ..train.evidence.evaluate import evaluate as evaluate_run

    evaluation = evaluate_run(
        found,
        data=data,
        split=asked,
        ridge=ridge,
        others=compare or (),
        submission=submission,
        by=by or (),
    )
    print_json(evaluation.to_dict()) if as_json else print_evaluation(evaluation)


def report(
    runs: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="RUN",
            help="Default: the newest; others are compared with the first.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Default: report.html in the run.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run, or about several.

    It has the training curves, the evaluation with intervals, the export, and clips to look at and listen to,
    and needs no network. RUN may also be a folder of runs that differ in their seed.

    Example: rrtn report runs/rrtn runs/vanilla
    """
    from ..runtime.tables.outputs import check_new

    if out:
        check_new(out, f"--out {out}", mark=b'content="rrtn report"')
    found = [existing_run(run) for run in runs] if runs else [existing_run(None)]
    load_torch("train.evidence.report")
    from ..train.evidence.report import report as write_report

    page = write_report(found, out=out)
    print_json({"report": str(page)}) if as_json else say(f"report in {page}")


# Measure -> its column, and which is left out first where a terminal is narrow.
_FIGURES: Final = {
    "ccc_biased": ("biased CCC", 4),
    "pearson": ("Pearson", 3),
    "mae": ("MAE", 2),
    "ridge_ccc": ("ridge CCC", 1),
}


def print_evaluation(evaluation: "Evaluation") -> None:
    """Tables on stdout."""
    if evaluation.targets:
        _print_ratings(evaluation)
    if evaluation.classes:
        _print_classes(evaluation)
    for other, comparison in evaluation.compared.items():
        _print_comparison(evaluation, other, comparison)
    for groups in evaluation.groups:
        _print_groups(groups)
    if evaluation.groups and evaluation.classes:
        say("note: --by looks at the rated targets alone, not at classes")


def _print_ratings(evaluation: "Evaluation") -> None:
    from ..train.evidence.significance import names_with_mean

    figures = evaluation.figures
    counts = evaluation.counts if any(n < evaluation.clips for n in evaluation.counts) else ()
    shown = [(name, *_FIGURES[name]) for name in figures if name != "ccc"]
    table = Table(
        "target",
        *numbers("CCC"),
        *([Column("95%")] if evaluation.interval else []),
        *(Column(title, right=True, drop=drop) for _, title, drop in shown),
        *(numbers("clips") if counts else []),
    )

    def add_row(name: str, k: int, rated: str, style: str = "") -> None:
        ccc, *others = (number_text(figures[measure][k]) for measure in ("ccc", *(one for one, *_ in shown)))
        clips = [rated] if counts else []
        table.add_row(name, ccc, *_interval(evaluation, k), *others, *clips, style=style)

    for k, target in enumerate(evaluation.targets):
        add_row(target, k, str(evaluation.counts[k]))
    table.add_section()
    add_row(names_with_mean(evaluation.targets)[-1], -1, "", "bold")
    print_table(table, title=_title(evaluation), caption=_caption(evaluation))


def _print_classes(evaluation: "Evaluation") -> None:
    """The recall of each class target, and what the epoch was chosen by."""
    from ..train.evidence.significance import FEWEST_SPEAKERS
    from ..train.method.tasks import METRIC_NAMES

    intervals = evaluation.uar_intervals or ()
    known = sum(not math.isnan(low) for low, _ in intervals)
    table = Table("class target", *numbers("UAR"), *([Column("95%")] if known else []), *numbers("classes"))
    for j, target in enumerate(evaluation.classes):
        cells = [interval_text(*intervals[j])] if known else []
        here, learned = int(evaluation.tables[j].any(1).sum()), len(target.classes)
        classes = str(learned) if here == learned else f"{here} of {learned}"
        table.add_row(target.name, number_text(evaluation.uar[j]), *cells, classes)
    few = f"a class is of fewer than {FEWEST_SPEAKERS} speakers"
    interval = "95% by resampling speakers" if known else f"no 95% interval: {evaluation.no_evidence or few}"
    if 0 < known < len(intervals):
        interval += f", not where {few}"
    metric = METRIC_NAMES[evaluation.metric]
    metric += (
        f" {evaluation.score:z.3f}"
        if not math.isnan(evaluation.score)
        else f" is not known: fewer than two clips have a label of {', '.join(evaluation.unlabelled)}"
    )
    if (parts := evaluation.parts) and not math.isnan(evaluation.score):
        metric += f": the harmonic mean of CCC {parts['ccc']:z.3f}, UAR {parts['uar']:z.3f} and 1 / MAE"
        metric += (
            f" {1 / parts['error']:z.3f} of {', '.join(evaluation.task.by_error if evaluation.task else ())}"
        )
    caption = f"UAR: the mean of the classes' recalls, {interval}; {metric}"
    caption += "" if evaluation.targets else _remarks(evaluation)  # the table of the ratings has them
    print_table(table, title=_title(evaluation), caption=caption)


def _interval(evaluation: "Evaluation", column: int) -> list[str]:
    """The cell of the interval; none where there are too few speakers."""
    if not evaluation.interval:
        return []
    low, high = (end[column] for end in evaluation.interval)
    return [interval_text(low, high)]


def _title(evaluation: "Evaluation") -> str:
    epochs = ", ".join(map(str, evaluation.epochs))
    clips, speakers = counted(evaluation.clips, "clip"), counted(evaluation.speakers, "speaker")
    synthetic = " of SYNTHETIC voices" if evaluation.synthetic else ""
    split = f"{counted(evaluation.folds, 'fold')}" if evaluation.folds else evaluation.split
    return f"{evaluation.run}, epoch {epochs}: {split}, {clips}{synthetic}, {speakers}"


def _caption(evaluation: "Evaluation") -> str:
    interval = "95% by resampling speakers"
    if not evaluation.interval:
        interval = f"no 95% interval: {evaluation.no_evidence}"
    means = "; means over seeds" if len(evaluation.seeds) > 1 else ""
    chosen = "; the epoch was chosen on these clips" if evaluation.chosen_on else ""
    chosen += _remarks(evaluation)
    chosen += "; each clip by the run that did not hear its speaker" if evaluation.folds else ""
    ccc = "CCC: the challenge's (variances over n-1, covariance over n)"
    ridge = "" if evaluation.ridge is None else "; ridge: on each mel bin's mean and deviation"
    if evaluation.ridge_of_others:
        ridge += ", fitted on the Train of --data"
    if evaluation.ridge_lacks_train:
        ridge = "; no ridge regression: this data has too few rated clips in Train to fit one"
    return f"{ccc}, {interval}{ridge}{means}{chosen}"


def _remarks(evaluation: "Evaluation") -> str:
    return "".join(f"; {remark}" for remark in evaluation.remarks.get(str(evaluation.run), ()))


def _print_comparison(evaluation: "Evaluation", other: str, comparison: "Comparison") -> None:
    from ..train.evidence.significance import names_with_mean

    evidence = [Column("95%"), *numbers("p", "p, Holm", drop=1)] if comparison.is_evidence else []
    table = Table("target", *numbers("difference"), *evidence, Column("", words=True))
    for k, target in enumerate(names_with_mean(evaluation.targets)):
        cells = [interval_text(comparison.low[k], comparison.high[k], "+z.3f")]
        cells += [number_text(comparison.p[k], ".4f"), number_text(comparison.p_holm[k], ".4f")]
        shown = cells if comparison.is_evidence else []
        table.add_row(target, difference_text(comparison.difference[k]), *shown, comparison.verdict(k))
    caption = "p: two-tailed, by swapping the two runs speaker by speaker; Holm: over the targets"
    if not comparison.is_evidence:
        caption = f"no interval and no p: {comparison.no_evidence}"
    caption += "; of the rated targets alone" if evaluation.classes else ""
    caption += "".join(f"; {other}: {remark}" for remark in evaluation.remarks.get(other, ()))
    speakers = counted(comparison.speakers, "speaker")
    print_table(table, title=f"{evaluation.run} minus {other}: {speakers}", caption=caption)


def _print_groups(report: "GroupReport") -> None:
    """Every group on each target, then the differences of the means."""
    from ..train.evidence.significance import names_with_mean

    for group in report.groups:
        rated = numbers("clips") if min(group.rated) < group.clips else ()
        table = Table(
            "target", *numbers("CCC"), Column("95%"), *numbers("bias"), Column("95% of bias"), *rated
        )
        for k, target in enumerate(names_with_mean(report.targets)):
            clips = [str((*group.rated, "")[k])] if rated else []
            table.add_row(target, *_figures(group.ccc, k), *_figures(group.bias, k, "+"), *clips)
        counts = f"{counted(group.clips, 'clip')}, {counted(group.speakers, 'speaker')}"
        print_table(table, title=f"{report.grouping.column} {group.name}: {counts}")
    if report.differences:
        _print_group_differences(report)


def _print_group_differences(report: "GroupReport") -> None:
    from ..train.evidence.significance import FEWEST_SPEAKERS

    table = Table(
        "groups",
        *numbers("CCC"),
        Column("95%", drop=2),
        *numbers("p"),
        *numbers("bias"),
        Column("95% of bias", drop=1),
        *numbers("p of bias"),
        Column("", words=True),
    )
    for found in report.differences:
        p = [number_text(adjusted[-1], ".4f") for adjusted in found.p_holm] if found.p_holm else ["", ""]
        ccc, bias = _figures(found.ccc, -1, "+"), _figures(found.bias, -1, "+")
        table.add_row(f"{found.first} minus {found.second}", *ccc, p[0], *bias, p[1], found.verdict())
    caption = (
        "bias: predicted minus rated; 95% by resampling speakers; p: two-tailed, by exchanging speakers, "
        f"Holm over the pairs; neither of fewer than {FEWEST_SPEAKERS} speakers"
    )
    if any(min(group.rated) < 2 for group in report.groups):
        caption += "; the mean of each pair is over the targets that both have"
    caption += f"; {counted(report.without, 'clip')} in no group" if report.without else ""
    title = f"Differences by {report.grouping.column}, mean over the targets"
    print_table(table, title=title, caption=caption)


def _figures(figures: "Figures", column: int, sign: str = "") -> list[str]:
    """Value and interval; blank where nobody knows them."""
    form = f"{sign}z.3f"
    low, high = (None if ends is None else ends[column] for ends in (figures.low, figures.high))
    return [number_text(figures.value[column], form), interval_text(low, high, form)]
