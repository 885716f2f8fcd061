"""The backends that run a model, and the choice between them. In reading order:

base            the record of a backend, and what a loaded backend can do
registry        the list of all backends, the fastest first
choice          which variant runs on which backend
tuning_file     what `rrtn tune` has found, in the user's cache
variant_rows    the variants for people
cpu             the record of `cpu`: ONNX Runtime on the processor
cuda            the record of `cuda`: ONNX Runtime on an NVIDIA GPU
trt             the record of `trt`: engines of TensorRT
openvino_kind   the record of `openvino`: OpenVINO on the processor
mnn_kind        the record of `mnn`: MNN on the processor
model_batch     what goes into a model and what comes out of it
ort_backend     runs an ONNX variant
silence         batches for models that take the frames with sound only
ort_session     sessions of ONNX Runtime with rrtn's options
openvino_backend  runs an ONNX variant by OpenVINO
mnn_backend     runs a variant in MNN's format
lanes           what a model needs for each batch that runs
cuda_runtime    CUDA's calls for copies, queues of work and pinned memory
device_memory   inputs and outputs in the memory of a device, and its queue of batches
trt_backend     runs an engine
engine_stamp    whether an engine may be loaded on this machine
cuda_libraries  whether ONNX Runtime can use CUDA here
cuda_driver     the NVIDIA driver and its GPUs
backend_errors  errors of ONNX Runtime, CUDA and TensorRT as ours
"""
