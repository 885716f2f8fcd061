"""The variants for CPUs: 3x3 convolutions in fewer multiplications, and no silence behind a recording.

bilinear      the algorithms: Toom-Cook for any tile, stride 1 and 2
graph_writer  nodes and constants, as they are written, and whole numbers that a graph computes
slot_layout   the layout of maps between fast convolutions, and the operators on it
conv_cost     what a convolution costs, counted or measured
rewriting     an ONNX graph with its convolutions replaced, and without silence (../silence.py)
cpu_variant   makes the variant `cpu` where it pays, and says by how much
int8_variant  the same for `cpu-int8`: products of int8
"""
