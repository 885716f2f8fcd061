"""What requests and answers of KServe hold, without a server."""

import warnings
from pathlib import Path

import msgspec
import numpy as np
from rrtn.runtime import FrontendSpec
from rrtn.runtime.bundle import Bundle, LabelMeaning
from rrtn.runtime.serving.kserve import inference_from_body, model_metadata

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
