"""The folder that export writes and scoring reads: bundle.json and the files of the model.

onnx_file    what an ONNX file holds, and whether it may be loaded
description  the labels, the frontend and the variants of a model
"""

from .description import (
    MANIFEST,
    METADATA_KEY,
    SAMPLES_SCHEMA,
    SCHEMA,
    Bundle,
    LabelMeaning,
    Variant,
    label_problem,
    load_bundle,
    metadata_of,
    repeated,
)

__all__ = [
    "MANIFEST",
    "METADATA_KEY",
    "SAMPLES_SCHEMA",
    "SCHEMA",
    "Bundle",
    "LabelMeaning",
    "Variant",
    "label_problem",
    "load_bundle",
    "metadata_of",
    "repeated",
]
