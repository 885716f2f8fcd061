"""Lists in docs/ have each code, flag, exit code and schema that the code has, and no other."""

import inspect
import re
from pathlib import Path

import typer
from rrtn.cli import app
from rrtn.runtime import bundle, errors
from rrtn.runtime.audio.codes import ERROR_CODES, FLAGS
from rrtn.runtime.scoring.table_job import SCORING_RULES
from rrtn.train import checkpoint

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_OF_AN_ERROR = {0, 1, 3, 129, 130, 141, 143}  # done, a bug, done with error rows, signals


def first_cells(page: str, head: str) -> list[str]:
    """The first cells of the table whose first column is named `head`."""
    text = (DOCS / page).read_text()
    (table,) = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.M)
    return [line.split("|")[1].strip().strip("`") for line in table.splitlines()]


def test_every_error_code_and_flag_is_explained_once() -> None:
    assert sorted(first_cells("troubleshooting.md", "code")) == sorted(ERROR_CODES)
    assert sorted(first_cells("troubleshooting.md", "flag")) == sorted(FLAGS)


def test_every_exit_code_is_explained_once() -> None:
    tree = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RrtnError)
    ]
    codes = {kind.exit_code for kind in tree} | NOT_OF_AN_ERROR
    assert [int(cell) for cell in first_cells("exit-codes.md", "code")] == sorted(codes)


def test_readme_has_every_command_once() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = [
        [f"{name} {inner}" for inner in getattr(kind, "commands", {})] or [name]
        for name, kind in commands.items()
    ]
    listed = [cell.removeprefix("rrtn ") for cell in first_cells("../README.md", "command")]
    assert sorted(listed) == sorted(name for group in names for name in group)


def test_schemas_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| [^|]+ \|[^|]*\| (\d+)(?:; (\d+) [^|]*)? \|", (DOCS / "versions.md").read_text(), flags=re.M
    )
    assert [tuple(int(number) for number in row if number) for row in rows] == [
        (bundle.SCHEMA, bundle.description.MEANING_SCHEMA),
        (checkpoint.SCHEMA, checkpoint.LABELS_SCHEMA),
        (SCORING_RULES,),
    ]


def test_every_source_file_that_a_page_names_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.glob("*.md")]
    rooms = "benchmarks|commands|docs|examples|export|runtime|tests|train"
    named = {name for page in pages for name in re.findall(rf"\b(?:{rooms})/[\w/]+\.py\b", page.read_text())}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_no_page_takes_rrtn_from_a_package_index() -> None:
    """No index has it, and whatever stands there under its name is somebody else's."""
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "examples").rglob("*.*")]
    taken = re.compile(r"pip install [^\n`#]*\brrtn\b")
    texts = {page.name: page.read_text() for page in pages if page.suffix in (".md", ".py", ".c", ".js")}
    assert {name: found for name, text in texts.items() if (found := taken.findall(text))} == {}


def test_prose_has_short_lines() -> None:
    """Of at most 110 characters, but for tables, headings, code, pictures and lines that a link fills."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.glob("*.md")]
    long = [f"{page.name}: {line}" for page in pages for line in prose(page.read_text()) if len(line) > 110]
    assert long == []


def prose(text: str) -> list[str]:
    """The lines of paragraphs and lists."""
    lines = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M).splitlines()
    return [line for line in lines if not re.match(r" {4}|\s*[|<]|#|\s*\(?\[[^]]*\]\(\S*\)+[.,;]?$", line)]
