"""The messages of the KServe v2 protocol (Open Inference Protocol), with Triton's extension for binary data.

The one input is `waveform`, the one output `scores`. B sounds, N samples of each, K labels.

https://github.com/kserve/open-inference-protocol and, for binary data,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, NamedTuple

import msgspec
import numpy as np

from ..arrays import Float32, in_float32, shortest
from ..audio.wav_file import wav_bytes
from ..bundle import Bundle
from ..documents import Count
from ..spec import MAX_RATE, MIN_RATE
from ..text import counted
from .refusals import bad_request

MODEL: Final = "rrtn"
VERSION: Final = "1"
INPUT: Final = "waveform"
OUTPUT: Final = "scores"
HEADER_LENGTH: Final = "inference-header-content-length"  # bytes of JSON, in front of binary data
_FP32: Final = np.dtype("<f4")
_LENGTH: Final = re.compile(r"[0-9]{1,12}")
_RATE: Final = "sampling_rate"
_SIZE: Final = "binary_data_size"
_NESTED: Final = re.compile(rb"\s*\[\s*\[")  # a list of lists, in JSON
_BINARY: Final = "binary_data"
_FLAGS: Final = "flags_"
_MOST_DIGITS: Final = 64  # bytes of JSON for a number, with what is between two of them


class _Input(msgspec.Struct):
    name: str
    shape: list[Count]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()  # immutable


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Message(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] = []
    parameters: dict[str, Any] = {}
    id: str = ""


class Inference(NamedTuple):
    """A request for scores."""

    waveforms: Float32  # [B, N]
    sampling_rate: int  # Hz
    id: str
    wants_binary: bool


def inference_from_body(
    body: bytes,
    header_length: str | None,
    *,
    sampling_rate: int,
    check_room: Callable[[int], None] = lambda sounds: None,
) -> Inference:
    """A body of JSON, or of `header_length` bytes of JSON and the samples behind them.

    `sampling_rate` (Hz) is taken where neither the request nor its input has a parameter of that name.
    `check_room` is given the number of sounds before a sample is read, which takes seconds for many.
    Raises RefusedError, and what `check_room` raises.
    """
    head, tail = _parted(body, header_length)
    try:
        message = msgspec.json.decode(head, type=_Message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad_request(
            "request", str(error), wanted="JSON in the form of the KServe v2 protocol"
        ) from error
    if [tensor.name for tensor in message.inputs] != [INPUT]:
        came = ", ".join(tensor.name[:40] for tensor in message.inputs[:4])
        raise bad_request("inputs", came, wanted=f"one input, {INPUT}")
    if any(tensor.name != OUTPUT for tensor in message.outputs):
        raise bad_request("outputs", "an output of another name", wanted=OUTPUT)
    (tensor,) = message.inputs
    _check_parameters(INPUT, tensor.parameters, (_RATE, _SIZE))
    for output in message.outputs:
        _check_parameters(OUTPUT, output.parameters, (_BINARY,))
    rate, wants_binary = _rate(message, tensor, sampling_rate), _wants_binary(message)
    check_room(_sounds(tensor))
    return Inference(_waveforms(tensor, tail), rate, message.id, wants_binary)


def _check_parameters(name: str, parameters: dict[str, Any], known: Sequence[str]) -> None:
    """Refuses what the answer would not keep to, as the region of a shared memory."""
    if unknown := parameters.keys() - {*known}:
        came = ", ".join(sorted(one[:40] for one in unknown)[:4])
        raise bad_request(f"parameters of {name}", came, wanted=" or ".join(known))


def answer_to_inference(
    inference: Inference, scores: Float32, flags: Sequence[Sequence[str]]
) -> tuple[bytes, dict[str, str]]:
    """Scores [B, K] and the flags of each of the B sounds -> the body of the answer, and its headers."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(scores.shape)}
    # The protocol's parameters are texts and numbers, and no lists.
    parameters: dict[str, Any] = {
        f"{_FLAGS}{i}": ",".join(of_sound) for i, of_sound in enumerate(flags) if of_sound
    }
    binary = scores.astype(_FP32).tobytes() if inference.wants_binary else b""
    if inference.wants_binary:
        parameters[_SIZE] = len(binary)
    else:
        output["data"] = shortest(scores.ravel())
    if parameters:
        output["parameters"] = parameters
    answer = {"model_name": MODEL, "model_version": VERSION, "outputs": [output]}
    head = msgspec.json.encode({**answer, "id": inference.id} if inference.id else answer)
    if not inference.wants_binary:
        return head, {"content-type": "application/json"}
    return head + binary, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def write_wav(file: IO[bytes], waveform: Float32, sampling_rate: int) -> None:
    """Writes samples [N] as a file, so that they take the way of all sounds."""
    file.write(wav_bytes(waveform, sampling_rate, subtype="FLOAT"))
    file.flush()


def server_metadata(version: str) -> dict[str, Any]:
    """The answer of /v2."""
    return {"name": MODEL, "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(bundle: Bundle) -> dict[str, Any]:
    """The answer of /v2/models/rrtn. What the protocol has no field for is under `parameters`."""
    labels, meaning = list(bundle.labels), bundle.meaning
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "rrtn",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(labels)]}],
        "parameters": {
            "labels": labels,
            _RATE: bundle.spec.sampling_rate,
            **({"meaning": meaning.to_dict()} if meaning else {}),
        },
    }


def _parted(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    length = int(header_length) if _LENGTH.fullmatch(header_length) else 0
    if not 0 < length <= len(body):
        raise bad_request(
            HEADER_LENGTH, header_length[:20], wanted=f"1 to {len(body)}, the length of the body"
        )
    return body[:length], body[length:]


def _sounds(tensor: _Input) -> int:
    """How many there are, by the shape."""
    if tensor.datatype != "FP32" or len(tensor.shape) not in (1, 2) or 0 in tensor.shape:
        came = f"{tensor.datatype[:10]} {tensor.shape[:4]}"
        raise bad_request(INPUT, came, wanted="FP32 of shape [samples] or [sounds, samples]")
    return tensor.shape[0] if len(tensor.shape) > 1 else 1


def _waveforms(tensor: _Input, tail: bytes) -> Float32:
    samples = _samples(tensor, tail)
    if samples.size != math.prod(tensor.shape):
        raise bad_request(INPUT, f"{samples.size} samples", wanted=f"as many as in {tensor.shape}")
    return samples.reshape(-1, tensor.shape[-1])


def _samples(tensor: _Input, tail: bytes) -> Float32:
    size = tensor.parameters.get(_SIZE)
    text = bytes(tensor.data)
    if not text:
        if size is None and not tail:
            raise bad_request(INPUT, "no data", wanted=f"data, or {_SIZE} and the samples behind the JSON")
        if size != len(tail) or len(tail) % _FP32.itemsize:
            raise bad_request(INPUT, f"{len(tail)} bytes of binary data", wanted=f"{size}, in whole samples")
        return np.frombuffer(tail, _FP32)
    if tail or size is not None:
        raise bad_request(INPUT, "data in JSON and in binary", wanted="one of them")
    if len(text) > _MOST_DIGITS * (count := math.prod(tensor.shape)) + _MOST_DIGITS:
        came = f"{len(text):,} bytes of data for {counted(count, 'sample')}"
        raise bad_request(INPUT, came, wanted=f"as many as in {tensor.shape}")
    return _from_json(tensor.data, tensor.shape)


def _from_json(data: msgspec.Raw, shape: list[int]) -> Float32:
    """The numbers of a flat list, or of the lists, one for each sound, of a nested one."""
    try:
        if not _NESTED.match(data):
            return in_float32(msgspec.json.decode(data, type=list[float]))
        rows = msgspec.json.decode(data, type=list[list[float]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(INPUT, str(error), wanted="numbers, or lists of numbers") from error
    lengths = sorted({len(row) for row in rows})
    if [len(rows), *lengths] != shape:
        came = f"{counted(len(rows), 'list')} of {' and '.join(map(str, lengths[:3]))} numbers"
        raise bad_request(INPUT, came, wanted=f"lists as the shape {shape} says")
    return in_float32(rows)


def _rate(message: _Message, tensor: _Input, default: int) -> int:
    """Said of the request or of its input. Raises RefusedError where both say it, and not the same."""
    said = [where.parameters[_RATE] for where in (message, tensor) if _RATE in where.parameters]
    for rate in said:
        if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
            raise bad_request(
                _RATE, repr(rate)[:40], wanted=f"{MIN_RATE} to {MAX_RATE} Hz, as a whole number"
            )
    if len(set(said)) > 1:
        raise bad_request(_RATE, " and ".join(map(str, said)), wanted="one rate for all sounds of a request")
    return said[0] if said else default


def _wants_binary(message: _Message) -> bool:
    of_request = message.parameters.get("binary_data_output", False)
    asked = [output.parameters.get(_BINARY, of_request) for output in message.outputs] or [of_request]
    if not isinstance(asked[0], bool):
        raise bad_request(_BINARY, repr(asked[0])[:40], wanted="true or false")
    return asked[0]
