"""rrtn evaluate and rrtn report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .options import DataDir, Json, RunArgument, existing_run
from .printing import new_table, plain, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.evidence.evaluate import Evaluation
    from ..train.evidence.significance import Comparison


def evaluate(
    run: RunArgument = None,
    data: DataDir = None,
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

    Example: rrtn evaluate runs/rrtn --compare runs/vanilla
    """
    from ..runtime.tables.outputs import check_new

    if submission:
        check_new(submission, f"--submission {submission}", overwrite=overwrite)
    from ..train.evidence.evaluate import evaluate as evaluate_run

    evaluation = evaluate_run(
        existing_run(run), data=data, ridge=ridge, others=compare or (), submission=submission
    )
    print_json(evaluation.to_dict()) if as_json else _print_evaluation(evaluation)


def report(
    runs: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="[RUN...]",
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
    from ..train.evidence.report import report as write_report

    page = write_report([existing_run(run) for run in runs] if runs else [existing_run(None)], out=out)
    print_json({"report": str(page)}) if as_json else say(f"report in {page}")


def _print_evaluation(evaluation: "Evaluation") -> None:
    columns = {"CCC, biased": evaluation.biased, "Pearson": evaluation.pearson, "MAE": evaluation.mae}
    if evaluation.ridge is not None:
        columns["ridge CCC"] = evaluation.ridge
    low, high = evaluation.interval
    table = new_table("target", "CCC", "95%", *columns)
    epochs = ", ".join(map(str, evaluation.epochs))
    clips = f"{evaluation.clips} clips, {evaluation.speakers} speakers"
    means = "; means over seeds" if len(evaluation.seeds) > 1 else ""
    for k, target in enumerate(evaluation.targets):
        row = (
            f"{evaluation.challenge[k]:.3f}",
            f"{low[k]:.3f} to {high[k]:.3f}",
            *(f"{v[k]:.3f}" for v in columns.values()),
        )
        table.add_row(plain(target), *row)
    table.add_section()
    row = (f"{evaluation.challenge.mean():.3f}", f"{low[-1]:.3f} to {high[-1]:.3f}")
    table.add_row(
        "[bold]mean[/]",
        *(f"[bold]{cell}[/]" for cell in (*row, *(f"{v.mean():.3f}" for v in columns.values()))),
    )
    print_table(
        table,
        title=f"{evaluation.run}, epoch {epochs}: Val, {clips}",
        caption="CCC: the challenge's (variances over n-1, covariance over n), 95% by resampling speakers; "
        f"ridge: on each mel bin's mean and deviation{means}",
    )
    for other, comparison in evaluation.compared.items():
        _print_comparison(evaluation, other, comparison)


def _print_comparison(evaluation: "Evaluation", other: str, comparison: "Comparison") -> None:
    table = new_table("target", "difference", "95%", "p", "p, Holm", "")
    for k, target in enumerate([*evaluation.targets, "mean"]):
        interval = f"{comparison.low[k]:+.3f} to {comparison.high[k]:+.3f}"
        p = (f"{comparison.p[k]:.4f}", f"{comparison.p_holm[k]:.4f}")
        table.add_row(plain(target), f"{comparison.difference[k]:+.3f}", interval, *p, comparison.verdict(k))
    print_table(
        table,
        title=f"{evaluation.run} minus {other}: {comparison.speakers} speakers",
        caption="p: two-tailed, by swapping the two runs speaker by speaker; Holm: over the targets",
    )
