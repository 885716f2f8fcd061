"""rrtn: Redundancy Reduction Twins Network, from rated vocal bursts to a model that runs anywhere."""

__version__ = "0.1.0"
