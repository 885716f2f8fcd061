"""What C libraries print is lost, and what Python says on stderr is not."""

import os
import subprocess
import sys

import pytest
from rrtn.runtime.system.host import quiet_libraries

CODE = """
import os, sys
from rrtn.runtime.system.host import quiet_libraries

print("before", file=sys.stderr, flush=True)
with quiet_libraries():
    os.write(1, b"noise of a library")
    os.write(2, b"noise of a library")
    print("a bar", file=sys.stderr)
os.write(2, b"after\\n")
print("a table")
"""


def test_python_is_heard_and_libraries_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "a table\n"
    assert done.stderr.splitlines() == ["before", "a bar", "after"]


def test_a_stderr_that_is_no_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    descriptors = len(os.listdir("/proc/self/fd"))
    with quiet_libraries():
        assert sys.stderr is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_error_passes_and_stderr_is_as_it_was() -> None:
    before = sys.stderr
    with pytest.raises(ValueError, match="within"), quiet_libraries():
        raise ValueError("within")
    assert sys.stderr is before
    assert not before.closed


def test_a_closed_stderr_is_no_error() -> None:
    code = f"import os; os.close(2)\n{CODE}".replace('print("before", file=sys.stderr, flush=True)', "")
    code = code.replace('    print("a bar", file=sys.stderr)\n', "").replace('os.write(2, b"after\\n")\n', "")
    code = code.replace('    os.write(2, b"noise of a library")\n', "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a table\n"
