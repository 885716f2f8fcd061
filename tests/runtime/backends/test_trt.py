"""What the doctor says about engines, machine by machine."""

import pytest
from rrtn.runtime.backends.engine_stamp import Machine
from rrtn.runtime.backends.trt import diagnosis_of_machine


@pytest.mark.parametrize(
    ("versions", "capability", "without_cuda", "state", "detail"),
    [
        ({}, 90, "", "missing", "no TensorRT"),
        ({"tensorrt_rtx": "1.7.1"}, None, "no NVIDIA driver", "missing", "tensorrt_rtx 1.7.1, but no GPU"),
        ({"tensorrt_rtx": "1.7.1"}, 90, "", "missing", "tensorrt_rtx 1.7.1 has no engines for SM90"),
        (
            {"tensorrt": "11.4", "tensorrt_rtx": "1.7.1"},
            90,
            "",
            "note",
            "tensorrt 11.4, tensorrt_rtx 1.7.1, for SM90",
        ),
        ({"tensorrt_rtx": "1.7.1"}, 86, "", "note", "tensorrt_rtx 1.7.1, for SM86"),
        ({"tensorrt": "11.4"}, 90, "libcudnn.so.9 cannot be loaded", "missing", "not the CUDA memory"),
    ],
)
def test_what_engines_need(
    versions: dict[str, str], capability: int | None, without_cuda: str, state: str, detail: str
) -> None:
    machine = Machine(versions=versions, capability=capability, driver=None)
    found = diagnosis_of_machine(machine, without_cuda)
    assert found.state == state
    assert detail in found.detail
    assert bool(found.fix) == (state == "missing")
