"""Which packages are installed."""

import importlib.metadata


def installed_version(*names: str) -> str | None:
    """The version of the first of these packages that is installed; None where none is."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
