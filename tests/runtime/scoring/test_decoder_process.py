"""What a decoder process loads: there is one for each core, so each module costs its memory as often."""

import os
import sys
from pathlib import Path

import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_reader import packed_files
from rrtn.runtime.audio.pack_writer import write_packs
from rrtn.runtime.scoring.decoder_messages import DecoderSettings, FileEnd
from rrtn.runtime.scoring.decoder_pool import DecoderPool

NEEDED = {"numpy", "soundfile", "soxr"}
HEAVY = {"onnxruntime", "rich", "typer", "torch", "ray", "tensorrt", "tensorrt_rtx"}


@pytest.mark.parametrize("input_kind", ["waveform", "logmel"])
def test_a_decoder_loads_what_it_needs_and_nothing_else(
    spec: FrontendSpec,
    tmp_path: Path,
    real_clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    input_kind: str,
) -> None:
    """The process is the one that the pool starts, and it decodes files of their own and packed ones."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # Python then names each import on stderr
    with InputSpool(inputs_from_arguments(map(str, real_clips))) as spool:
        write_packs(spool, tmp_path / "packs")
