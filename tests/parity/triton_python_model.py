"""What Triton's Python backend runs in place of its ONNX Runtime backend: model.py of a version's folder.

B clips of all requests, which share one batch.
"""

import os
import sys

sys.path[:0] = os.environ["PACKAGES"].split(":")  # Triton's stub looks where its own Python does

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402  # the stub has it


class TritonPythonModel:
    def initialize(self, args):
        path = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (self.input,) = [given.name for given in self.session.get_inputs()]
        self.outputs = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        clips = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        found = self.session.run(self.outputs, {self.input: np.concatenate(clips)})  # each [B, ...]
        ends = np.cumsum([len(clip) for clip in clips])[:-1]
        parts = zip(*(np.split(output, ends) for output in found), strict=True)
        return [triton.InferenceResponse(list(map(triton.Tensor, self.outputs, part))) for part in parts]
