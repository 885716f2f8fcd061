"""Writes docs/settings.md from the dataclasses of a run's config.toml; their comments are the text.

    python docs/generate_settings.py

A field's text is the comment behind it, or above it. Its point is the row of the table in
docs/method.md that names the setting.
"""

import dataclasses
import inspect
import io
import re
import tokenize
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from rrtn.train.config import Config
from rrtn.train.method.choices import ENCODER_NAMES
from rrtn.train.method.tasks import TASK_NAMES

DOCS = Path(__file__).parent
HEAD = """# Settings

A run saves all of these as `config.toml`. `--config FILE.toml` of `rrtn train` takes any part of
them; a flag wins over the file. An unknown key is an error, and so is a setting that has no effect
with the chosen method.

"Point" is the row in [the method](method.md) that says what the paper leaves open, and why rrtn
does it so.
This page is made from the code by `docs/generate_settings.py`.
"""
TABLE_HEAD = "| setting | default | type | meaning | flag | point |\n|---|---|---|---|---|---|"
UNIT = re.compile(r"(Hz|samples|frames|mel bins)\b(?:[;,] )?")  # how a comment begins that names one
POINT = re.compile(r" \(\S+\.md, point \d+\)")  # the page has a column for it
UNITS_IN_NAMES = {"_minutes": "minutes", "_epochs": "epochs", "_dbfs": "dBFS"}
CHOICES = {"model.encoder": ENCODER_NAMES, "data.task": TASK_NAMES}  # beside those that a type states
TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}


class Text(NamedTuple):
    """What a comment says of a setting."""

    flag: str
    unit: str
    meaning: str


def page() -> str:
    """The whole page."""
    points = points_of_settings((DOCS / "method.md").read_text())
    sections = {field.name: section for field in dataclasses.fields(Config) if (section := section_of(field))}
    parts = [
        HEAD,
        section_text("", Config, points),
        *(section_text(name, kind, points) for name, kind in sections.items()),
    ]
    return "\n".join(parts)


def section_of(field: "dataclasses.Field[Any]") -> type | None:
    """The dataclass of a section; None for a setting."""
    made: object = field.default_factory
    return made if isinstance(made, type) and dataclasses.is_dataclass(made) else None


def section_text(name: str, kind: type, points: dict[str, str]) -> str:
    """A heading, the section's docstring, and a row for each setting."""
    title = f"`[{name}]`" if name else "Above all sections"
    about = f"{about_section(kind)}\n\n" if name else ""
    texts, types = texts_of_fields(kind), get_type_hints(kind)
    rows = [
        row(f"{name}.{field.name}".strip("."), field.default, types[field.name], texts[field.name], points)
        for field in dataclasses.fields(kind)
        if not section_of(field)
    ]
    return f"## {title}\n\n{about}{TABLE_HEAD}\n" + "\n".join(rows) + "\n"


def about_section(kind: type) -> str:
    """The docstring without what it raises."""
    paragraphs = (inspect.getdoc(kind) or "").split("\n\n")
    return "\n\n".join(part for part in paragraphs if not part.startswith("Raises "))


def row(key: str, default: Any, kind: Any, text: Text, points: dict[str, str]) -> str:
    """One setting as a row of the table."""
    point = f"[{points[key]}](method.md)" if key in points else ""
    flag = f"`{text.flag}`" if text.flag else ""
    choices = CHOICES.get(key, get_args(kind) if get_origin(kind) is Literal else ())
    words = choices_text(choices) if choices else type_text(kind, text.unit or unit_of_name(key))
    cells = [
        f"`{key}`",
        f"`{toml(default)}`",
        words,
        text.meaning,
        flag,
        point,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def toml(value: Any) -> str:
    """A default as config.toml has it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(map(toml, value))}]"
    return repr(value)


def choices_text(choices: tuple[str, ...]) -> str:
    """All values that a setting may have."""
    return " or ".join(f'`"{choice}"`' for choice in choices)


def type_text(kind: Any, unit: str) -> str:
    """The type in words, with its unit."""
    if get_origin(kind) is tuple:
        items = get_args(kind)
        return f"list of {TYPES[items[0]]}" if items[-1] is ... else f"{len(items)} numbers"
    return ", ".join(filter(None, (TYPES[kind], unit)))


def unit_of_name(key: str) -> str:
    """The unit that a setting's name ends with."""
    return next((unit for ending, unit in UNITS_IN_NAMES.items() if key.endswith(ending)), "")


def texts_of_fields(kind: type) -> dict[str, Text]:
    """The comments of a dataclass by the field that they stand behind, or above."""
    texts: dict[str, str] = {}
    above: list[str] = []
    field = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        is_alone = not token.line[: token.start[1]].strip()
        words = token.string.removeprefix("#").strip()
        if is_alone and token.string == "def":  # the fields end here
            break
        if token.type == tokenize.COMMENT and is_alone:
            above.append(words)
        elif token.type == tokenize.COMMENT:
            texts[field] = words
        elif token.type == tokenize.NAME and is_alone and (found := re.match(r"\s*(\w+):", token.line)):
            field = found[1]
            texts[field], above = " ".join(above), []
    return {field.name: text_of_comment(texts.get(field.name, "")) for field in dataclasses.fields(kind)}


def text_of_comment(comment: str) -> Text:
    """`--flag: meaning`, `unit; meaning`, or a meaning."""
    flag, _, rest = comment.partition(" ") if comment.startswith("--") else ("", "", comment)
    unit = UNIT.match(rest)
    meaning = POINT.sub("", rest[unit.end() :] if unit else rest)
    return Text(flag.rstrip(":;,"), unit[1] if unit else "", meaning)


def points_of_settings(method: str) -> dict[str, str]:
    """`key = value` in the rows of the method's table -> the row's number."""
    rows = re.findall(r"^\| (\d+) \|(.*)$", method, flags=re.M)
    return {key: number for number, cells in rows for key in re.findall(r"`([a-z_.]+) = ", cells)}


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(page())
