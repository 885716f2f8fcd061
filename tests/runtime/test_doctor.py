"""The doctor reports what is installed, and its remedies exist."""

import importlib.metadata
import os
from pathlib import Path

import pytest
import soundfile
from rrtn.runtime.backends.registry import BACKENDS
from rrtn.runtime.doctor import Finding, examine


def by_subject() -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine()}


def test_every_part_is_reported_once() -> None:
    subjects = [finding.subject for finding in examine()]
    assert len(subjects) == len(set(subjects))
    assert {
        "python",
        "cpu",
        "memory",
        "disk",
        "cache",
        "gpu",
        *(f"score --backend {kind.name}" for kind in BACKENDS),
        "audio formats",
    } <= set(subjects)


def test_the_cache_is_measured_and_a_folder_that_is_none_of_ones_own_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "clips").mkdir(parents=True)
    with (cache / "clips/shard").open("wb") as file:
        file.truncate(3 << 29)
    assert by_subject()["cache"].detail.startswith(f"1.5 GiB in {cache} ")
    monkeypatch.delenv("RRTN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/home")
    monkeypatch.setattr("tempfile.tempdir", str(cache))
    (cache / f"rrtn-cache-{os.getuid()}").touch()
    found = by_subject()["cache"]
    assert (found.state, found.fix) == ("missing", "set RRTN_CACHE to a folder of your own")


def test_installed_packages_are_named_with_their_version() -> None:
    found = by_subject()
    assert found["onnx"].detail.startswith(importlib.metadata.version("onnx"))
    assert found["onnx"].state == "ok"
    assert f"libsndfile {soundfile.__libsndfile_version__}" in found["audio formats"].detail


def test_a_package_that_is_missing_comes_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rrtn.runtime.doctor.installed_version", lambda package: None)
    fixes = {
        finding.subject: finding.fix for finding in examine() if finding.detail.startswith("not installed")
    }
    assert fixes["onnxruntime-gpu"] == 'pip install "onnxruntime-gpu"'
    assert len(fixes) == 8
    assert [name for name, fix in fixes.items() if f'"{name}' not in fix] == []  # the package itself is in it


def test_two_packages_of_onnx_runtime_are_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.31.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert by_subject()["onnxruntime-gpu"] == Finding(
        "onnxruntime-gpu",
        "missing",
        "1.31.0 and onnxruntime 1.31.0, of which one has overwritten the other",
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
    )


def test_without_a_driver_the_gpu_and_cuda_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("rrtn.runtime.backends.cuda_driver.ctypes.CDLL", no_library)
    monkeypatch.setattr("rrtn.runtime.backends.cuda_libraries.cuda_missing", lambda: "no NVIDIA driver")
    found = by_subject()
    assert (found["gpu"].state, found["score --backend cuda"].state) == ("missing", "missing")


def test_a_cuda_library_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrtn.runtime.backends.cuda_libraries.cuda_missing", lambda: "")
    monkeypatch.setattr(
        "rrtn.runtime.backends.cuda_libraries.missing_library", lambda: "libcudnn.so.9 cannot be loaded"
    )
    found = by_subject()["score --backend cuda"]
    assert (found.state, found.fix) == ("missing", 'pip install "onnxruntime-gpu[cuda,cudnn]"')
    assert found.detail.startswith("libcudnn.so.9 cannot be loaded")
