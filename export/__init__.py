"""From a checkpoint to ONNX and TensorRT, each file behind a parity gate.

wanted              what was asked for, checked before torch is imported
source              a run's best checkpoint, and clips of its data
recipes             what a bundle may hold, and what each file is made from
publish             from a run to a bundle
deployed_network    the network without its projector
graph               the network as an ONNX file
samples_graph       a graph that takes waveforms or whole recordings, from one that takes log-Mels
log_mel_graph       the log-Mel as operators of a graph
operators           operators of a graph, as they are written
int8                ONNX files in 8 bits
onnx_nodes          what a graph says of its nodes and tensors
silence             which rows of a graph the silence behind a recording leaves to compute
engine              TensorRT engines, by the flavour that is installed
mnn_file            the model in MNN's own format
timing_cache        TensorRT's timings, kept between builds
parity              the gate: no file is published whose scores are not PyTorch's
bundle_parity       the variants of a bundle, compared again on this machine
bundle_replacement  a bundle takes another one's place
audeering           model.yaml, for audonnx
written_folder      a folder that takes the place of what rrtn wrote there, and of nothing else
triton              a model repository for Triton

web/                a page that scores in the browser
winograd/           the variant for CPUs
"""
