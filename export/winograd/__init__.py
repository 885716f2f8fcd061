"""The variant for CPUs: 3x3 convolutions in fewer multiplications."""
