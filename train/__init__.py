"""Training and evaluation. torch and torchaudio live here.

config        every setting of a run
config_file   config.toml: written, read, laid under flags, compared
plan          from settings to what will happen
start         from the settings of `rrtn train` to a finished run
step          one optimiser step after the other
predict       a split through the network, without training
loop          the training loop
run_folder    where a run's files are
run_state     from the loop's state to the folder, and back
checkpoint    safetensors and a JSON with their hashes
distributed   several processes that train as one
interruption  a trainer that is told to stop saves first
display       what a person sees meanwhile

method/       the paper: encoders, views, losses, weighting, metrics
data/         data sets, decoded clips, the synthetic corpus
evidence/     what a run is worth
"""
