"""The variants for CPUs: 3x3 convolutions in fewer multiplications.

bilinear      the algorithms: Toom-Cook for any tile, stride 1 and 2
slot_layout   the layout of maps between fast convolutions, and the operators on it
conv_cost     what a convolution costs, counted or measured
rewriting     an ONNX graph with its convolutions replaced
cpu_variant   makes the variant `cpu` where it pays, and says by how much
int8_variant  the same for `cpu-int8`: products of int8
"""
