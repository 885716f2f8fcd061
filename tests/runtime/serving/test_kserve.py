"""What requests and answers of KServe hold, without a server."""

import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.bundle import Bundle, LabelMeaning
from rrtn.runtime.serving.kserve import inference_from_body, model_metadata
from rrtn.runtime.serving.refusals import RefusedError, busy

MEANING = LabelMeaning(scales={"Awe": (1.0, 9.0)}, classes={"Type": ("Cry", "Laugh")}, submitted=("Awe",))


def test_metadata_say_what_the_scores_mean_where_they_are_not_ratings_from_0_to_1() -> None:
    plain = Bundle(path=Path(), labels=("Awe",), spec=FrontendSpec(), variants=(), provenance={})
    assert model_metadata(plain)["parameters"] == {"labels": ["Awe"], "sampling_rate": 16_000}
    labels = ("Awe", "Type=Cry", "Type=Laugh")
    scaled = Bundle(
        path=Path(), labels=labels, spec=FrontendSpec(), variants=(), provenance={}, meaning=MEANING
    )
    assert model_metadata(scaled)["parameters"]["meaning"] == MEANING.to_dict()
    assert model_metadata(scaled)["outputs"][0]["shape"] == [-1, 3]


def test_a_number_that_float32_cannot_hold_is_infinite_and_warns_nobody() -> None:
    for data, shape in (([1e39, 0.5], [2]), ([[1e39, 0.5]], [1, 2])):
        tensor = {"name": "waveform", "shape": shape, "datatype": "FP32", "data": data}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            inference = inference_from_body(
                msgspec.json.encode({"inputs": [tensor]}), None, sampling_rate=16_000
            )
        assert np.isposinf(inference.waveforms[0][0])


def body_of(tensor: dict[str, Any], **more: Any) -> bytes:
    full = {"name": "waveform", "shape": [2], "datatype": "FP32", "data": [0.5, 0.25], **tensor}
    return msgspec.json.encode({"inputs": [full], **more})


@pytest.mark.parametrize(
    ("tensor", "more", "came"),
    [
        (
            {},
            {"outputs": [{"name": "scores", "parameters": {"shared_memory_region": "r"}}]},
            "shared_memory_region",
        ),
        ({}, {"outputs": [{"name": "scores", "parameters": {"classification": 3}}]}, "classification"),
        ({}, {"outputs": [{"name": "scores", "parameters": {"binary_data": "false"}}]}, "'false'"),
        ({}, {"parameters": {"binary_data_output": 1}}, "1"),
        ({"data": [[]] * 1000}, {}, "3,001 bytes of data for 2 samples"),
    ],
)
def test_what_the_answer_would_not_keep_to_is_refused(
    tensor: dict[str, Any], more: dict[str, Any], came: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        inference_from_body(body_of(tensor, **more), None, sampling_rate=16_000)
    assert (refused.value.status, refused.value.came) == (400, came)


def test_no_data_at_all_say_so() -> None:
    tensor = {"name": "waveform", "shape": [2], "datatype": "FP32"}
    with pytest.raises(RefusedError, match="no data"):
        inference_from_body(msgspec.json.encode({"inputs": [tensor]}), None, sampling_rate=16_000)


@pytest.mark.parametrize(("data", "place"), [([0.5, None], "$[1]"), ([[0.5, None]], "$[0][1]")])
def test_what_is_no_number_is_named_by_its_place(data: list[Any], place: str) -> None:
    with pytest.raises(RefusedError) as refused:
        inference_from_body(body_of({"data": data, "shape": [1, 2]}), None, sampling_rate=16_000)
    assert refused.value.came == f"Expected `float`, got `null` - at `{place}`"


def test_too_many_sounds_are_refused_before_they_are_read() -> None:
    def full(sounds: int) -> None:
        raise busy(f"{sounds} are too many")

    body = body_of({"shape": [3, 1], "data": "no numbers"})
    with pytest.raises(RefusedError, match="3 are too many"):
        inference_from_body(body, None, sampling_rate=16_000, check_room=full)
