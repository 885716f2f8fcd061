"""An answer says what is wrong with a sound, and nothing of this machine."""

import asyncio
import errno

import pytest
from rrtn.runtime.audio.codes import ERROR_CODES
from rrtn.runtime.serving.application import _answer_to_os_error
from rrtn.runtime.serving.refusals import refusal_from_row
from rrtn.runtime.tables.rows import Row
from starlette.requests import Request


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


def test_without_free_descriptors_a_client_may_come_again() -> None:
    """Any other error of the system is a bug, and keeps its traceback."""
    request = Request({"type": "http", "path": "/score", "headers": []})
    for number in (errno.EMFILE, errno.ENFILE):
        answer = asyncio.run(_answer_to_os_error(request, OSError(number, "too many open files")))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    with pytest.raises(OSError, match="broken"):
        asyncio.run(_answer_to_os_error(request, OSError(errno.EIO, "broken")))
