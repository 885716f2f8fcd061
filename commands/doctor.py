"""rrtn doctor."""

from .options import Json
from .printing import new_table, plain, print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Show what this machine can do, what is missing, and the fix."""
    from ..runtime.doctor import examine

    findings = examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
        return
    table = new_table("", "", "found", "fix")
    marks = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "note": "[cyan]i[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, plain(finding.detail), plain(finding.fix))
    print_table(table)
