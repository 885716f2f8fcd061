"""Training and evaluation (torch, torchaudio).

Modules are imported where they are used: `rrtn.train.loop`, ...
"""
