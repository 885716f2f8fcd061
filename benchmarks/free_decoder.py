"""A decoder that takes no time: parent_cost.py starts it in place of the real one."""

from rrtn.runtime.audio.sources import AudioSource
from rrtn.runtime.scoring import decoder_process
from rrtn.runtime.scoring.decoder_messages import IDLE, Report, SlotMemory
from rrtn.runtime.system.host import inherited_connection, opened_memory

PROGRAM = "import sys; sys.path[:0] = {paths}; from free_decoder import main; main({pipe}, {memory!r})"


class _FreeDecoder(decoder_process._DecoderLoop):
    """Says of every file at once that its clip lies in a slot."""

    def _decode(self, ticket: int, source: AudioSource) -> None:
        self._works_on(ticket)
        self._take_slot(ticket)
        self._report.clips.append((ticket, 0.0, 2.49, 2.3))
        self._report.ends.append((ticket, 2.3, (), ticket.to_bytes(20, "little")))
        self._works_on(IDLE)


def main(pipe: int, memory: str) -> None:
    """As decoder_process.main, without the limits."""
    with inherited_connection(pipe) as connection:
        settings = connection.recv()
        slots = SlotMemory(opened_memory(memory, settings.bytes), settings)
        decoder = _FreeDecoder(connection, slots, settings)
        connection.send(Report())
        try:
            decoder.run()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
