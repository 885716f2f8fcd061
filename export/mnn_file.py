"""The model in MNN's own format."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ..runtime.errors import ModelError
from ..runtime.system.packages import installed_version

# The converter in MNN's wheel, without what its command line does beside: `MNN.tools` installs a package by
# pip, and reports each conversion to MNN's makers.
_CONVERT: Final = "import sys, _tools; _tools.mnnconvert(sys.argv)"
_SECONDS: Final = 600


def mnn_from_onnx(model: bytes) -> tuple[bytes, dict[str, Any]]:
    """An ONNX file of ours -> the same in MNN's format, and what made it from what.

    Nothing is quantised. MNN must be installed. Raises ModelError where its converter refuses the model.
    """
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "model.onnx"), Path(name, "model.mnn")
        source.write_bytes(model)
        files = ("--modelFile", str(source), "--MNNModel", str(target))
        command = (sys.executable, "-P", "-c", _CONVERT, "-f", "ONNX", *files, "--bizCode", "rrtn")
        # It says whether it was successful only in words.
        done = subprocess.run(command, cwd=name, capture_output=True, timeout=_SECONDS, check=False)
        if not target.exists():
            said = (done.stderr + done.stdout).decode(errors="replace").split("\n")
            came = next((line for line in reversed(said) if line.strip()), "no file")
            raise ModelError(
                "MNN's converter", came, wanted="a file in its format", fix="use the variant fp32"
            )
        content = target.read_bytes()
    version = installed_version("MNN")
    return content, {"flavour": "mnn", "version": version, "onnx_sha256": hashlib.sha256(model).hexdigest()}
