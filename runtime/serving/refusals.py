"""Why a request is not answered with scores."""

from collections.abc import Mapping
from typing import Any, Final

from ..audio.codes import ERROR_CODES
from ..errors import RrtnError
from ..tables.rows import Row

RETRY_SECONDS: Final = 1


class RefusedError(RrtnError):
    """A request that cannot be answered. `status` and `headers` are HTTP's, and `code` is for programs."""

    def __init__(
        self,
        status: int,
        code: str,
        subject: str,
        came: str,
        *,
        wanted: str = "",
        fix: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(subject, came, wanted=wanted, fix=fix)
        self.status, self.code, self.headers = status, code, headers or {}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the answer."""
        fields = super().to_dict()
        del fields["exit_code"]  # of a command
        return {**fields, "code": self.code}


def bad_request(subject: str, came: str, *, wanted: str = "", fix: str = "") -> RefusedError:
    """The request is not in the form that its path takes."""
    return RefusedError(400, "bad_request", subject, came, wanted=wanted, fix=fix)


def busy(came: str) -> RefusedError:
    """There is no room for the request now; it may be sent again."""
    fix, headers = f"send it again after {RETRY_SECONDS} s", {"retry-after": str(RETRY_SECONDS)}
    return RefusedError(429, "busy", "server", came, fix=fix, headers=headers)


def refusal_from_row(row: Row, subject: str) -> RefusedError:
    """A sound that cannot be scored. Its code is one of `audio.codes.ERROR_CODES`."""
    # What a decoder said at its end may name files of this machine.
    came = ERROR_CODES[row.error] if "/" in row.detail else row.detail
    return RefusedError(422, row.error, subject, came, wanted="a sound that rrtn score takes")
