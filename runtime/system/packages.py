"""Which packages are installed."""


def installed_version(*names: str) -> str | None:
    """The version of the first of these packages that is installed; None where none is."""
    import importlib.metadata  # not above: a tenth of what a decoder needs to start, and few ask

    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
