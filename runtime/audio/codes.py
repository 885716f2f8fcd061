"""What a row says of a file: the codes of errors, and of flags beside scores. Both lists are closed."""

from typing import Final

from ..spec import MAX_CHANNELS, MAX_RATE, MIN_RATE

ERROR_CODES: Final = {
    "missing": "the file does not exist, or no longer",
    "permission": "the file may not be read",
    "not_regular": "a folder, pipe, socket or device",
    "empty": "no bytes, or a header without samples",
    "unsupported_format": "no audio, or of a kind that no reader knows (text, a film without sound, ...)",
    "needs_formats_extra": "audio that only the second reader, PyAV, reads, and it is not installed",
    "unsupported_layout": f"more than {MAX_CHANNELS} channels, or a rate outside {MIN_RATE} to {MAX_RATE} Hz",
    "no_channel": "fewer channels than --channel asks for",
    "corrupt": "the decoder cannot read the file",
    "truncated": "fewer samples than the header says; --allow-truncated scores what is there",
    "too_long": "longer than --max-seconds",
    "non_finite": "NaN or infinity among the samples",
    "changed": "the file was written to while it was read",
    "crashed": "the file ended the decoder, twice, or met a fault in a reader or in rrtn",
    "timeout": "not decoded within --timeout",
    "out_of_memory": "decoding the file takes more memory than a decoder may have",
    "invalid_score": "the model gave NaN or infinity",
}
FLAGS: Final = {
    "no_burst": "--segment found no burst: a row without scores, and without an error",
    "silent": "what was scored holds no sound; a silent window does not count in its file's mean",
    "only_start": "only the first clip was scored, and sound follows it; --window auto scores all",
    "truncated": "scored, but cut off (with --allow-truncated)",
    "no_length": "the recorder did not fill in the length; all that is there was scored",
    "one_channel": "the channels cancel each other, and only the loudest was scored",
    "dc": "an offset of more than 15% of the peak was removed",
    "second_reader": "read by PyAV, since libsndfile refuses the file",
    "gap": "live sound: samples were lost, since the machine was too slow; silence stands in their place",
    "damaged": "scored without the parts that cannot be decoded",
}


def in_order(flags: set[str]) -> tuple[str, ...]:
    """Flags in the order of FLAGS, in which rows have them."""
    return tuple(flag for flag in FLAGS if flag in flags)
