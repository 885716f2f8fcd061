"""What a row says of a file: the codes of errors, and of flags beside scores. Both lists are closed."""

from typing import Final

ERROR_CODES: Final = {
    "missing": "the file is not there (any more)",
    "permission": "the file may not be read",
    "not_regular": "a folder, pipe, socket or device",
    "empty": "no bytes, or a header without samples",
    "unsupported_format": "libsndfile does not know the format (WavPack, AAC, text, ...)",
    "unsupported_layout": f"more than 8 channels, or a rate outside {4_000} to {384_000} Hz",
    "corrupt": "the decoder gave up on it",
    "truncated": "fewer samples than the header says; --allow-truncated scores what is there",
    "too_long": "longer than --max-seconds",
    "non_finite": "NaN or infinity among the samples",
    "changed": "the file was written to while it was read",
    "crashed": "it ends the decoder, twice",
    "timeout": "not decoded within --timeout",
    "out_of_memory": "decoding it takes more memory than a decoder may have",
    "invalid_score": "the model gave NaN or infinity for it",
}
FLAGS: Final = {
    "silent": "scored, but every sample is zero",
    "truncated": "scored, but cut off (with --allow-truncated)",
}
