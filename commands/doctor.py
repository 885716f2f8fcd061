"""rrtn doctor."""

from .options import Json
from .printing import Column, Table, print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Show what this machine can do, what is missing, and the fix."""
    from ..runtime.doctor import examine

    findings = examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
        return
    table = Table("what", "", Column("found", words=True))
    marks = {"ok": "ok", "missing": "--", "note": "i"}
    colours = {"ok": "", "missing": "yellow", "note": "cyan"}
    for finding in findings:
        style = colours[finding.state]
        what = finding.subject.removeprefix("score ")  # of --backend: the column is narrow
        table.add_row(what, marks[finding.state], finding.detail, style=style)
        if finding.fix:
            table.add_row("", "", f"-> {finding.fix}", style=style)
    print_table(table)
