"""Why a request is not answered with scores."""

from collections.abc import Mapping
from typing import Any, Final

from ..audio.codes import ERROR_CODES
from ..errors import RrtnError
from ..tables.rows import Row

BUSY: Final = 429
RETRY_SECONDS: Final = 1


class RefusedError(RrtnError):
    """A request that cannot be answered. `status` is HTTP's, and `code` is for programs."""

    def __init__(
        self, status: int, code: str, subject: str, came: str, *, wanted: str = "", fix: str = ""
    ) -> None:
        super().__init__(subject, came, wanted=wanted, fix=fix)
        self.status, self.code = status, code

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that belong to the status."""
        return {"retry-after": str(RETRY_SECONDS)} if self.status == BUSY else {}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the answer."""
        fields = super().to_dict()
        del fields["exit_code"]  # of a command
        return {**fields, "code": self.code}


def bad_request(subject: str, came: str, *, wanted: str = "", fix: str = "") -> RefusedError:
    """The request is not in the form that its path takes."""
    return RefusedError(400, "bad_request", subject, came, wanted=wanted, fix=fix)


def busy(came: str) -> RefusedError:
    """The same request may be answered later."""
    return RefusedError(BUSY, "busy", "server", came, fix=f"send it again after {RETRY_SECONDS} s")


def refusal_from_row(row: Row, subject: str) -> RefusedError:
    """A sound that cannot be scored. Its code is one of `audio.codes.ERROR_CODES`."""
    # What a decoder said at its end may name files of this machine.
    came = ERROR_CODES[row.error] if "/" in row.detail else row.detail
    return RefusedError(422, row.error, subject, came, wanted="a sound that rrtn score takes")
