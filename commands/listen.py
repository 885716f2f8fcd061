"""rrtn listen: live sound from a microphone."""

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..runtime.backends.registry import AUTO
from .live import Shown, score_live
from .options import BackendOption, Json, ModelOption, VariantOption, bundle_place, window_from_option
from .printing import Table, print_json, print_table

if TYPE_CHECKING:
    from ..runtime.live.microphone import Microphone

_HOP = 0.5  # s


def listen(
    model: ModelOption = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            help="Name or number of the microphone; null hears silence; default: the system's choice.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the microphones, and end.")] = False,
    backend: BackendOption = AUTO,
    variant: VariantOption = None,
    window: Annotated[str, typer.Option(help="Seconds of each window; auto: one clip.")] = "auto",
    hop: Annotated[float, typer.Option(help="Seconds from one window to the next.")] = _HOP,
    rate: Annotated[
        Optional[int], typer.Option(help="Of the microphone (Hz); default: its own.", show_default=False)
    ] = None,
    channel: Annotated[
        Optional[int],
        typer.Option(min=1, help="Take this channel; default: the mean of all.", show_default=False),
    ] = None,
    seconds: Annotated[
        Optional[float], typer.Option(help="End after so much sound; default: never.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Shown: the highest labels of each window.")] = 3,
    as_json: Json = False,
) -> None:
    """Score what a microphone hears, window after window.

    Ctrl-C ends it with a summary. With --json each window is a line, and the summary is the last.

    Example: rrtn listen --hop 1 --json
    """
    from ..runtime.bundle import load_bundle
    from ..runtime.live.microphone import devices as listed
    from ..runtime.live.microphone import sound_of_microphone
    from ..runtime.scoring.scorer_settings import ScorerSettings

    if devices:
        _print_devices(listed(device), as_json)
        return
    bundle = load_bundle(bundle_place(model))
    settings = ScorerSettings(
        backend=backend,
        variant=variant,
        channel=channel,
        batch_size=1,
        window=window_from_option(window),
        hop=hop,
        level="running",
    )
    source = sound_of_microphone(device, rate=rate, seconds=seconds)
    score_live(bundle, settings, source, Shown(as_json, top), drops_late=True)


def _print_devices(found: "list[Microphone]", as_json: bool) -> None:
    if as_json:
        named = [{"name": one.name, "rate": one.rate, "channels": one.channels} for one in found]
        print_json({"devices": named})
        return
    table = Table("number", "microphone", "Hz", "channels")
    for number, one in enumerate(found, 1):
        table.add_row(f"{number}", one.name, f"{one.rate}", f"{one.channels}")
    print_table(table)
