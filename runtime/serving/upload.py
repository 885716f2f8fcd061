"""A sound in memory that a decoder can open like a file."""

from ..system.host import NamedFile


class Upload(NamedFile):
    """A sound that a client has sent: gone when it is closed, and when this process ends."""

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
