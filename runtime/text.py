"""Text of others made harmless: labels, names of files, what a bundle says. None of it is obeyed by a
terminal, a spreadsheet or a page.

JSON needs little of this: rrtn writes JSON in ASCII. JSONL and Parquet tables keep every name exactly.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

# Control characters, separators of lines and paragraphs, what turns the direction of text or annotates
# it, and halves of characters, which no UTF-8 has.
_CONTROLS: Final = (
    "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_CONTROL: Final = re.compile(f"[{_CONTROLS}\ufffe\uffff]")  # these two are no characters: XML has none
_NOT_IN_CELL: Final = re.compile(rf"[{_CONTROLS}]|\\(?=x[0-9a-f]{{2}})")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ROUNDING: Final = 1e-12  # of sums of floats: no difference
_LONGEST: Final = 500  # characters of a value in an error
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")
# The full-width signs begin formulas in spreadsheets of East Asia.
_FORMULA: Final = re.compile(r"\s*[=+\-@'\uff1d\uff0b\uff0d\uff20]")


def printable(text: object) -> str:
    r"""One line of text for a person. A control character becomes \x1b, \n, \u202e, ..."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def in_html(text: object) -> str:
    """`printable` for a page or a drawing, where it is text and no markup."""
    import html  # not above: --help needs no table of entities

    return html.escape(printable(text))


def printable_lines(text: object) -> str:
    """`printable` for a text that has lines of its own."""
    return "\n".join(map(printable, str(text).split("\n")))


def json_text(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON that every program reads, in ASCII.

    What nobody knows is null: JSON has no NaN. A name of a file that is not UTF-8 has U+FFFD for its bytes.
    """
    return json.dumps(_for_json(document), indent=indent, allow_nan=False)


def _for_json(document: Any) -> Any:
    match document:
        case float():
            return document if math.isfinite(document) else None
        case str():
            return _SURROGATE.sub("\ufffd", document)
        case dict():
            return {_for_json(name): _for_json(value) for name, value in document.items()}
        case list() | tuple():
            return [_for_json(value) for value in document]
    return document


def short(value: object) -> str:
    """A value of a file as Python writes it, cut to what an error can show."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def counted(count: int, noun: str) -> str:
    """A number and its noun, as in "1 file", "1,000 files" and "2 classes", for messages."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def first_of(items: Sequence[object], most: int = 3, separator: str = ", ") -> str:
    """The first of them, and how many more there are, as in "a, b, c and 4 more"."""
    more = len(items) - most
    return separator.join(map(str, items[:most])) + (f" and {more:,} more" if more > 0 else "")


def number_text(value: float | None, form: str = "z.3f") -> str:
    """A number, for tables; blank for None and NaN, which nobody knows."""
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def difference_text(value: float | None) -> str:
    """A difference with its sign. One too small for three decimals has one digit; zero is +0.000."""
    text = number_text(value, "+z.3f")
    return f"{value:+.0e}" if value and text == "+0.000" and abs(value) > _ROUNDING else text


def interval_text(low: float | None, high: float | None, form: str = "z.3f") -> str:
    """Both ends of an interval; blank where there is none."""
    ends = number_text(low, form), number_text(high, form)
    return " to ".join(ends) if all(ends) else ""


def csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows of cells as a CSV in UTF-8, a line each."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def without_brackets(file_id: str) -> str:
    """[58712] -> 58712, as Hume-VB writes names; take[2] stays as it is."""
    return file_id[1:-1] if file_id.startswith("[") and file_id.endswith("]") else file_id


def cell_from_text(text: str) -> str:
    r"""A cell of a CSV: one line of plain UTF-8 that no spreadsheet takes for a formula.

    The bytes of control characters become \xNN, and so does a backslash that would read as such a byte; paths
    of Windows stay as they are. A ' is set before what begins with = + - @ or '. `bytes_from_cell` gives the
    text back.
    """
    cell = _NOT_IN_CELL.sub(_escaped, text)
    return f"'{cell}" if _FORMULA.match(cell) else cell


def bytes_from_cell(cell: str) -> bytes:
    """The exact bytes of the text that `cell_from_text` wrote."""
    parts = _ESCAPE.split(cell.removeprefix("'"))  # text, hex, text, hex, ..., text
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


def _escaped(found: "re.Match[str]") -> str:
    # A byte that is not UTF-8, or half a character, whatever the locale's encoding is.
    errors = "surrogateescape" if "\udc80" <= found[0] <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", errors))
