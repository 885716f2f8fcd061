"""An answer says what is wrong with a sound, and nothing of this machine."""

import pytest
from rrtn.runtime.audio.codes import ERROR_CODES
from rrtn.runtime.serving.refusals import refusal_from_row
from rrtn.runtime.tables.rows import Row


@pytest.mark.parametrize(
    ("detail", "came"),
    [
        ("0 bytes", "0 bytes"),
        ('File "/opt/rrtn/reader.py", line 3', ERROR_CODES["crashed"]),
        ("[Errno 2] No such file: '/proc/7/fd/9'", ERROR_CODES["crashed"]),
    ],
)
def test_what_came_names_no_file(detail: str, came: str) -> None:
    refusal = refusal_from_row(Row(file=b"", error="crashed", detail=detail), "sound")
    assert (refusal.status, refusal.code, refusal.came) == (422, "crashed", came)
