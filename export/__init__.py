"""From a checkpoint to ONNX and TensorRT, behind a parity gate. Modules are imported where they are used."""
