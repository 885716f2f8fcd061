"""The tests of this folder run without torch (conftest.py)."""

import importlib

import pytest


@pytest.mark.parametrize("name", ["torch", "torchaudio", "safetensors"])
def test_what_only_training_has_cannot_be_imported_here(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{name}.nn")  # torch's may be loaded, by tests of the training
