"""What a decoder process loads: there is one for each core, so each module costs its memory as often."""

import os
from pathlib import Path

import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_writer import write_packs
from rrtn.runtime.progress import Progress
from rrtn.runtime.scoring import decoder_handle
from rrtn.runtime.scoring.decoder_messages import DecoderSettings
from rrtn.runtime.scoring.decoder_pool import DecoderPool, FilesEnded
from rrtn.runtime.spec import InputKind

NEEDED = {"numpy", "soundfile", "soxr", "rrtn"}
HEAVY = {"onnxruntime", "rich", "typer", "torch", "ray", "tensorrt", "tensorrt_rtx", "onnx"}


@pytest.mark.parametrize("kind", ["waveform", "logmel"])
def test_a_decoder_loads_what_it_needs_and_nothing_else(
    kind: InputKind,
    spec: FrontendSpec,
    tmp_path: Path,
    real_clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process is one that the pool starts. It decodes files of their own and packed ones."""
    with (
        InputSpool(inputs_from_arguments([os.fsencode(path) for path in real_clips])) as spool,
        Progress("pack", spool.files, "files") as bar,
    ):
        write_packs(spool, tmp_path / "packs", bar)
    said = (tmp_path / "said").open("w+b", buffering=0)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # Python then names each import on stderr
    monkeypatch.setattr(decoder_handle.tempfile, "TemporaryFile", lambda: said)
    pool = DecoderPool(DecoderSettings(spec=spec, input=kind, slots=32), count=1, chunk=32, timeout=60.0)
    files = [one.source for one in inputs_from_arguments([real_clips[0], tmp_path / "packs"])]
    events = pool.events(files, ahead=100)
    ends = [end for event in events if isinstance(event, FilesEnded) for end in event.ends]
    assert len(ends) == len(files) == 13
    imports = (tmp_path / "said").read_text()
    pool.close()
    modules = {line.rpartition("|")[2].strip() for line in imports.splitlines()}
    loaded = {module.partition(".")[0] for module in modules}
    assert loaded >= NEEDED
    assert loaded & HEAVY == set()
    assert "importlib.metadata" not in modules  # a tenth of the start
