"""Training and evaluation (torch, torchaudio). In reading order:

config         every setting, one dataclass a section
sections       dataclasses of settings <-> nested plain values, as TOML and JSON hold them
config_file    config.toml: written, read, overridden by flags, compared on a resume
plan           settings and data that are checked, before anything is trained
request        what `rrtn train` was asked for, checked before torch is imported
start          from a request to a finished run
device         which device a process trains on
loop           the training loop
step           one optimiser step
precision      what is computed in float32 whatever the precision
loss_scale     the factor on the loss that float16 needs
predict        scores of a whole split
run_folder     where a run's files are
run_state      the state of a run: from its folder into a stepper, and back
host_copy      copies that training does not wait for
checkpoint     weights and optimiser on the disk, with their hashes
distributed    several processes that train as one
interruption   Ctrl-C, SIGTERM and SIGHUP as a flag
display        what a person sees of a run

method/        the paper: encoders, views, losses, weightings, metrics
data/          data sets, decoded clips, the synthetic corpus
evidence/      what a run is worth: evaluation, statistics, tables, the report

Modules are imported where they are used: `rrtn.train.loop`, ...
"""
