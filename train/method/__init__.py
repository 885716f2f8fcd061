"""The paper's method. In reading order:

columns     what the columns of the scores mean: ratings on scales, classes
tasks       the tasks of the vocal-burst challenges
choices       what the settings of the method may be
losses        the equations of the paper
weighting     how the terms of the loss become one number
twins_loss    both views through the network, and the loss that is minimised
model         encoder, head and projector
encoders      the encoders, and what an encoder must do
fusible       ReLU and pooling as a compiler fuses them best
view_batchnorm  BatchNorm for both views in one batch
frontend      log-Mel on the training device
views         order, crops and masks, as pure functions of the seed
metrics       concordance correlation
panns         a PANNs checkpoint as initialisation
flops         how much arithmetic a step is
"""
