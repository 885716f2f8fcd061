"""What runs a model: ONNX Runtime and TensorRT, and the choice between them."""
