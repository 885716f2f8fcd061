"""How many bad files are too many.

Above that number something else is wrong, and a table full of errors helps nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..audio.file_names import cell_from_path
from ..errors import ConfigError, StoppedError
from ..tables.rows import Row
from ..text import counted

_FIRST: Final = 100  # files that are counted before a fraction means anything


@dataclass
class ErrorBudget:
    """Counts bad files, in the order of the files. Without limits nothing stops the scoring.

    A file is bad if one of its rows has no scores.
    """

    most_fraction: float | None = None
    most_in_a_row: int | None = None
    fail_fast: bool = False
    files: int = 0
    bad: int = 0
    in_a_row: int = 0

    def __post_init__(self) -> None:
        if self.most_fraction is not None and not 0 <= self.most_fraction <= 1:
            raise ConfigError("--max-bad-fraction", str(self.most_fraction), wanted="0 to 1")
        if self.most_in_a_row is not None and self.most_in_a_row < 1:
            raise ConfigError("--max-bad-run", str(self.most_in_a_row), wanted="1 or more")

    def count(self, rows: Sequence[Row]) -> None:
        """Counts one file by its rows. Raises StoppedError if it is one bad file too many."""
        is_bad = any(row.error for row in rows)
        self.files += 1
        self.bad += is_bad
        self.in_a_row = self.in_a_row + 1 if is_bad else 0
        if is_bad and self.fail_fast:
            raise self._stopped(rows, "the first bad file, with --fail-fast")
        if self.most_in_a_row is not None and self.in_a_row >= self.most_in_a_row:
            raise self._stopped(rows, f"{counted(self.in_a_row, 'bad file')} in a row")
        if self.files >= _FIRST:
            self._check_fraction(rows)

    @property
    def has_limit(self) -> bool:
        """Whether anything can stop the scoring."""
        return self.fail_fast or self.most_in_a_row is not None or self.most_fraction is not None

    def count_kept(self, rows: Sequence[Row]) -> None:
        """Counts one file that was scored before, whose neighbours may be scored now."""
        self.count(rows)
        self.in_a_row = 0

    def check(self, files: Iterable[Sequence[Row]]) -> None:
        """Checks all files of a table by their rows, as if they were scored now."""
        anew = replace(self, files=0, bad=0, in_a_row=0)
        for rows in files:
            anew.count(rows)
        anew.finish()

    def finish(self) -> None:
        """Checks the fraction after the last file, however few files there were."""
        if self.files:
            self._check_fraction(())

    def _check_fraction(self, rows: Sequence[Row]) -> None:
        if self.most_fraction is not None and self.bad / self.files > self.most_fraction:
            raise self._stopped(rows, f"{self.bad} of {counted(self.files, 'file')} could not be scored")

    def _stopped(self, rows: Sequence[Row], reason: str) -> StoppedError:
        last = next((row for row in rows if row.error), None)
        where = f"{cell_from_path(last.file)} {last.error} {last.detail}".strip() if last else "all files"
        return StoppedError(
            where,
            reason,
            wanted="fewer bad files",
            fix="repair them or change the limit, and run the command again; what is scored is kept",
        )
