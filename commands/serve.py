"""rrtn serve: scores over HTTP."""

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from ..runtime.backends.registry import AUTO
from ..runtime.errors import MissingExtraError, RrtnError
from ..runtime.text import counted
from .options import (
    BackendOption,
    BundleArgument,
    Channel,
    Json,
    VariantOption,
    bundle_place,
    say_other_channel,
)
from .printing import end_with_summary, print_json, say
from .program import ends_with, signal_that_came, stopped_by_signal

if TYPE_CHECKING:
    import socket

    from ..runtime.scoring.local_engine import LocalEngine
    from ..runtime.scoring.scorer_settings import ScorerSettings
    from ..runtime.serving.server import Limits, Server

_EXTRA: Final = frozenset({"fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"})
_MB: Final = 10**6  # bytes


def serve(
    model: BundleArgument = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 is all of them; there is no authentication.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    backend: BackendOption = AUTO,
    variant: VariantOption = None,
    batch_size: Annotated[
        Optional[int],
        typer.Option(help="Clips of several requests that may share a batch.", show_default=False),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option(help="Decoding processes; default: one a core.", show_default=False)
    ] = None,
    max_mb: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Larger bodies are refused (413).")
    ] = 32.0,
    max_seconds: Annotated[float, typer.Option(help="Longer sounds are refused (422).")] = 300.0,
    timeout: Annotated[
        float, typer.Option(help="Slower bodies are refused (408), and files slower to decode (422) (s).")
    ] = 30.0,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Sounds that may wait for scores; more are refused (429).")
    ] = 64,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Score what is there of cut-off files.")
    ] = False,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Score sounds that come over HTTP.

    POST a file to /score, or use a client of KServe v2 or Triton. /docs shows all paths. Ctrl-C stops it.

    Example: rrtn serve runs/my-run/export, then curl --data-binary @burst.wav http://127.0.0.1:8000/score
    """
    with _extra():
        from ..runtime.serving.http_server import listening_socket
        from ..runtime.serving.server import Limits
    from ..runtime.scoring.scorer_settings import ScorerSettings

    limits = Limits(max_bytes=round(max_mb * _MB), seconds=timeout, most_waiting=max_waiting)
    settings = ScorerSettings(
        backend=backend,
        variant=variant,
        batch_size=batch_size,
        workers=workers,
        max_seconds=max_seconds,
        timeout=timeout,
        allow_truncated=allow_truncated,
        channel=channel,
    )
    with contextlib.closing(listening_socket(host, port)) as bound:
        _run(settings, bundle_place(model), bound, limits, as_json)


def _run(
    settings: "ScorerSettings",
    model: Path,
    bound: "socket.socket",
    limits: "Limits",
    as_json: bool,
) -> None:
    from ..runtime.bundle import load_bundle
    from ..runtime.scoring.local_engine import LocalEngine, scorer_within_budget
    from ..runtime.serving.server import Server
    from ..runtime.system.memory import memory_as_before

    bundle = load_bundle(model)
    say_other_channel(bundle, settings.channel)
    with memory_as_before(), scorer_within_budget(bundle, settings) as scorer:
        server, begin = Server(scorer, limits), time.monotonic()
        error: RrtnError | None = None
        try:
            server.run(bound, ready=partial(_say_ready, LocalEngine(scorer), bound, as_json))
        except RrtnError as raised:
            error = raised
        except BaseException:
            if (number := signal_that_came()) is None:
                raise
            error = stopped_by_signal(number)
        _end(server, time.monotonic() - begin, error, as_json)


def _say_ready(engine: "LocalEngine", bound: "socket.socket", as_json: bool) -> None:
    from ..runtime.serving.http_server import is_loopback, url_of

    url, scorer = url_of(bound), engine.scorer
    say(engine.description)
    if not is_loopback(bound):
        say("warning: other machines can connect and send requests: there is no authentication")
    say(f"{url}/docs shows the paths; a test: curl --data-binary @burst.wav {url}/score")
    if as_json:
        backend = {"backend": scorer.backend.device, "variant": scorer.backend.variant.name}
        print_json({"url": url, **backend, "labels": scorer.labels}, indent=None)


def _end(server: "Server", seconds: float, error: RrtnError | None, as_json: bool) -> None:
    """Says how it went. With --json the summary is the last line, and has the error in it."""
    code = error.exit_code if error else 0
    ends_with(code)
    errors = dict(server.metrics.results)
    scored = errors.pop("scored", 0)
    listed = "".join(f", {code} {count}" for code, count in sorted(errors.items()))
    say(f"{counted(scored, 'sound')} scored in {seconds:.0f} s{listed and '; errors: ' + listed[2:]}")
    summary = {"scored": scored, "errors": errors, "seconds": seconds}
    end_with_summary(summary, code, error, as_json=as_json)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingExtraError.of(error.name, "serve", "rrtn serve") from error
