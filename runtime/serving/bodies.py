"""The body of a request, within its limits.

A body is refused as soon as it is too large, too slow, or more than the bodies of all requests may take
together. The content of a file comes as it is, or as one file of a form.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..system.host import NamedFile
from .refusals import RefusedError, bad_request, busy

_AT_ONCE: Final = 8  # largest bodies that may be in memory; of smaller ones there may be more
_FORM: Final = "multipart/form-data"


class Bodies:
    """Reads bodies of at most `max_bytes`, each of which may take `seconds` to come."""

    def __init__(self, *, max_bytes: int, seconds: float) -> None:
        self.max_bytes, self._seconds = max_bytes, seconds
        self._held = 0  # bytes of all bodies in memory

    @asynccontextmanager
    async def content(self, request: Request) -> AsyncIterator[bytes]:
        """All bytes of a body, which count as held until the end of the `with`."""
        async with self._chunks(request) as chunks:
            yield b"".join([chunk async for chunk in chunks])

    @asynccontextmanager
    async def sound(self, request: Request) -> AsyncIterator[NamedFile]:
        """The file in a body."""
        with NamedFile() as upload:
            async with self._chunks(request) as chunks:
                if request.headers.get("content-type", "").lower().startswith(_FORM):
                    upload.file.write(await _file_of_form(request, chunks, self.max_bytes))
                else:
                    async for chunk in chunks:
                        upload.file.write(chunk)
                upload.file.flush()
                yield upload

    @asynccontextmanager
    async def _chunks(self, request: Request) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        _check_encoding(request)
        stated = request.headers.get("content-length", "0")
        if not stated.isdecimal() or int(stated[:20]) > self.max_bytes:
            raise self._too_large(f"{stated[:20]} bytes by its header")
        body = _Body()
        try:
            async with aclosing(self._limited(request, body)) as chunks:
                yield chunks
        finally:
            self._held -= body.bytes

    async def _limited(self, request: Request, body: "_Body") -> AsyncGenerator[bytes, None]:
        latest = asyncio.get_running_loop().time() + self._seconds
        stream = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(latest):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise RefusedError(
                    408, "too_slow", "body", f"not there after {self._seconds:g} s", wanted="a faster client"
                ) from None
            body.bytes += len(chunk)
            self._held += len(chunk)
            self._check(body)
            yield chunk

    def _check(self, body: "_Body") -> None:
        if body.bytes > self.max_bytes:
            raise self._too_large("more bytes than that")
        if self._held > _AT_ONCE * self.max_bytes:
            raise busy("the bodies of other requests fill its memory")

    def _too_large(self, came: str) -> RefusedError:
        return RefusedError(413, "too_large", "body", came, wanted=f"at most {self.max_bytes} bytes")


@dataclass
class _Body:
    """The part of a body that has come."""

    bytes: int = 0


def _check_encoding(request: Request) -> None:
    """A compressed body could unfold to any size, and sounds are compressed by their own formats."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise RefusedError(
            415, "unsupported_encoding", "content-encoding", encoding[:40], wanted="a body as it is"
        )


async def _file_of_form(request: Request, chunks: AsyncGenerator[bytes, None], max_bytes: int) -> bytes:
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=16)
    parser.spool_max_size = max_bytes  # in memory, as every body
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise bad_request("form", error.message, wanted="one file in a form") from error
    try:
        for part in form.values():
            if isinstance(part, UploadFile):
                return part.file.read()
    finally:
        await form.close()
    raise bad_request("form", "no file in it", wanted="one file", fix="curl -F file=@burst.wav")
