"""The paper's method.

encoders    ResNet18, CNN10 and CNN14, and the contract of an encoder
model       encoder, head and projector
frontend    log-Mel on the training device
views       order, crops and masks as pure functions of seed, epoch and sample
losses      the equations of the paper
weighting   how the three terms of the loss are weighed
twins_loss  both views through the network, and the loss
metrics     concordance correlation
panns       a PANNs checkpoint as initialisation
flops       how much arithmetic a step is
"""
