"""A real server: scores as of rrtn score, whatever is sent between, and an answer to everything."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.arrays import shortest
from rrtn.runtime.tables.json_row import shortest_scores
from served import Answer, ServeProcess, at_once

FIXTURES = Path(__file__).parents[2] / "fixtures/bursts"
CLIPS = sorted(path for path in FIXTURES.iterdir() if path.suffix != ".md")
INFER = "/v2/models/rrtn/infer"
HEADER = "Inference-Header-Content-Length"
FIELDS = ["subject", "came", "wanted", "fix", "code"]
HEAD = b"POST /score HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def wanted(scorer: Scorer) -> list[dict[str, float]]:
    """The scores of each of CLIPS as rrtn score has them."""
    return [dict(row.scores or {}) for row in scorer.score_files(CLIPS)]


@pytest.fixture(scope="module")
def served(
    scorer: Scorer, wanted: list[dict[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("served")
    limits = ("--max-mb", 2, "--max-waiting", 20, "--max-seconds", 60, "--timeout", 20)
    server = ServeProcess(model_of(scorer), folder, *limits)
    yield server
    server.close()
    assert "Traceback" not in server.err.read_text()


def model_of(scorer: Scorer) -> Path:
    return scorer.bundle.path / scorer.backend.variant.file


def inference(waveform: Any, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "waveform", "datatype": "FP32", "shape": list(np.shape(waveform)), "data": waveform}
    return {"inputs": [{**tensor, **changes}], "parameters": {"sampling_rate": 16000}}


def binary(waveform: Any, **parameters: Any) -> tuple[bytes, str]:
    """-> a body of JSON and samples, and the length of the JSON."""
    samples = np.asarray(waveform, "<f4")
    size = {"binary_data_size": samples.nbytes}
    message = inference(samples, parameters=size) | {"parameters": {"sampling_rate": 16000} | parameters}
    del message["inputs"][0]["data"]
    head = json.dumps(message).encode()
    return head + samples.tobytes(), str(len(head))


def form(content: bytes, *, name: str = 'name="file"; filename="../../etc/x.wav"') -> tuple[bytes, str]:
    body = b"--xx\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n--xx--\r\n" % (name.encode(), content)
    return body, "multipart/form-data; boundary=xx"


def test_scores_are_those_of_rrtn_score(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    for path, scores in zip(CLIPS, wanted, strict=True):
        content, kind = form(path.read_bytes())
        answers = [
            served.post("/score", path.read_bytes()),
            served.post("/score", content, content_type=kind),
        ]
        for answer in answers:
            assert answer.status == 200
            assert answer.document["scores"] == pytest.approx(scores, abs=1e-6)
            assert list(answer.document["scores"]) == list(scores)
            assert answer.document["scores"] == shortest_scores(answer.document["scores"])


def test_scores_do_not_depend_on_neighbours(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    calls = [partial(served.scores, path.read_bytes()) for path in CLIPS] * 8
    for scores, right in zip(at_once(16, calls), wanted * 8, strict=True):
        assert scores == pytest.approx(right, abs=1e-6)


def test_an_answer_says_what_a_row_says(served: ServeProcess, scorer: Scorer) -> None:
    (row,) = scorer.score_files([CLIPS[0]])
    answer = served.post("/score", CLIPS[0].read_bytes()).document
    assert (answer["start"], answer["end"], answer["seconds"]) == (row.start, row.end, row.seconds)
    assert tuple(answer["flags"]) == row.flags == ("only_start",)


def test_kserve_in_json_and_in_binary(
    served: ServeProcess, scorer: Scorer, sound: Any, tmp_path: Path
) -> None:
    batch = np.stack([sound, sound[::-1]]).astype(np.float32)
    for number, one in enumerate(batch):
        soundfile.write(tmp_path / f"{number}.wav", one, 16000, subtype="FLOAT")
    rows = [*scorer.score_files([tmp_path / "0.wav", tmp_path / "1.wav"])]
    right = np.array([[*(row.scores or {}).values()] for row in rows])
    body, length = binary(batch, binary_data_output=True)
    answers = {
        "json": served.post(INFER, json.dumps(inference(batch.tolist()) | {"id": "7"})),
        "flat": served.post(INFER, json.dumps(inference(batch.ravel().tolist(), shape=[2, len(sound)]))),
        "binary": served.post("/v2/models/rrtn/versions/1/infer", body, **{HEADER: length}),
    }
    assert [answer.status for answer in answers.values()] == [200, 200, 200]
    assert answers["json"].document["id"] == "7"
    for name in ("json", "flat"):
        (output,) = answers[name].document["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [2, 3])
        np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), right, atol=1e-6, rtol=0)
        assert output["data"] == shortest(output["data"])
    length = int(answers["binary"].headers[HEADER.lower()])
    (output,) = json.loads(answers["binary"].content[:length])["outputs"]
    flags = {f"flags_{i}": ",".join(row.flags) for i, row in enumerate(rows) if row.flags}
    assert output["parameters"] == {"binary_data_size": 24, **flags}
    scores = np.frombuffer(answers["binary"].content[length:], "<f4").reshape(2, 3)
    np.testing.assert_allclose(scores, right, atol=1e-6, rtol=0)


def test_one_waveform_needs_no_batch(served: ServeProcess, scorer: Scorer, sound: Any) -> None:
    (output,) = served.post(INFER, json.dumps(inference(sound.tolist()))).document["outputs"]
    assert output["shape"] == [1, 3]
    right = scorer.score_waveform(sound, 16000)
    assert output["data"] == pytest.approx([*right.values()], abs=1e-6)


def test_the_rate_is_a_parameter(served: ServeProcess, scorer: Scorer, sound: Any) -> None:
    at_8_khz = {"parameters": {"sampling_rate": 8000}}
    of_request = inference(sound.tolist()) | at_8_khz
    of_input = inference(sound.tolist(), **at_8_khz) | {"parameters": {}}
    right = [*scorer.score_waveform(sound, 8000).values()]
    for body in (of_request, of_input):
        (output,) = served.post(INFER, json.dumps(body)).document["outputs"]
        assert output["data"] == pytest.approx(right, abs=1e-6)


def test_an_answer_of_kserve_has_the_flags_of_each_sound(served: ServeProcess, sound: Any) -> None:
    long = np.tile(sound, 1 + 48000 // len(sound))[:48000]
    batch = np.stack([long, np.zeros(48000)]).tolist()
    (output,) = served.post(INFER, json.dumps(inference(batch))).document["outputs"]
    assert output["parameters"] == {"flags_0": "only_start", "flags_1": "silent"}


def test_what_the_server_and_the_model_are(served: ServeProcess) -> None:
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/rrtn/ready"):
        assert served.ask("GET", path).status == 200, path
    assert served.ask("GET", "/v2").document["extensions"] == ["binary_tensor_data"]
    model = served.ask("GET", "/v2/models/rrtn/versions/1").document
    assert model["parameters"] == {"labels": ["Awe", "Fear", "Joy"], "sampling_rate": 16000}
    assert model["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]
    assert served.first["labels"] == ["Awe", "Fear", "Joy"]


def test_the_page_fetches_nothing(served: ServeProcess) -> None:
    answer = served.ask("GET", "/docs")
    text = answer.content.decode()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"https?://|<script|<link|src=", text)
    document = served.ask("GET", "/openapi.json").document
    assert {"/score", "/ready", "/metrics", INFER.replace("rrtn", "{model}")} <= set(document["paths"])
    assert all(f" {path}<" in text for path in document["paths"])


TENSOR: dict[str, Any] = {"name": "waveform", "datatype": "FP32", "shape": [2], "data": [0.5, 0.1]}
FORM, KIND = form(b"x", name='name="a"')
WHOLE, LENGTH = binary([0.5, 0.1])
NAN, _ = binary([np.nan, 0.1])


def lying(**parameters: Any) -> tuple[bytes, dict[str, str]]:
    """Binary data whose JSON says something else; with its header."""
    head = json.dumps({"inputs": [{**TENSOR, "data": None, "parameters": parameters}]}).replace(
        ', "data": null', ""
    )
    return head.encode() + bytes(8), {HEADER: str(len(head))}


HUGE = b'{"inputs":[{"name":"waveform","datatype":"FP32","shape":[1],"data":[1e999]}]}'
BAD: dict[str, tuple[Any, dict[str, str], int, str]] = {
    "no audio": (b"hello", {}, 422, "unsupported_format"),
    "no body": (b"", {}, 422, "empty"),
    "cut audio": (CLIPS[1].read_bytes()[:9000], {}, 422, "truncated"),
    "too large": (bytes(2_000_001), {}, 413, "too_large"),
    "compressed": (b"x", {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
    "a form without a boundary": (b"x", {"content-type": "multipart/form-data"}, 400, "bad_request"),
    "a form without a file": (FORM, {"content-type": KIND}, 400, "bad_request"),
    "half a form": (form(b"x")[0][:60], {"content-type": KIND}, 400, "bad_request"),
}
BAD_TENSORS: dict[str, tuple[Any, dict[str, str], int, str]] = {
    "not JSON": (b"{", {}, 400, "bad_request"),
    "deep JSON": (b"[" * 100_000, {}, 400, "bad_request"),
    "no inputs": (b'{"inputs": []}', {}, 400, "bad_request"),
    "another input": ({"inputs": [{**TENSOR, "name": "x"}]}, {}, 400, "bad_request"),
    "another type": ({"inputs": [{**TENSOR, "datatype": "FP64"}]}, {}, 400, "bad_request"),
    "another shape": ({"inputs": [{**TENSOR, "shape": [3]}]}, {}, 400, "bad_request"),
    "a huge shape": ({"inputs": [{**TENSOR, "shape": [2**62, 2**62]}]}, {}, 413, "too_large"),
    "three dimensions": ({"inputs": [{**TENSOR, "shape": [1, 1, 2]}]}, {}, 400, "bad_request"),
    "nothing in it": ({"inputs": [{**TENSOR, "shape": [0], "data": []}]}, {}, 400, "bad_request"),
    "words": ({"inputs": [{**TENSOR, "data": ["a", "b"]}]}, {}, 400, "bad_request"),
    "ragged": ({"inputs": [{**TENSOR, "data": [[1], 2]}]}, {}, 400, "bad_request"),
    "lists of other lengths": (
        {"inputs": [{**TENSOR, "shape": [2, 2], "data": [[0.1, 0.2, 0.3], [0.4]]}]},
        {},
        400,
        "bad_request",
    ),
    "samples before sounds": (
        {"inputs": [{**TENSOR, "shape": [2, 3], "data": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]}]},
        {},
        400,
        "bad_request",
    ),
    "an unknown parameter": ({"inputs": [{**TENSOR, "parameters": {"rate": 8000}}]}, {}, 400, "bad_request"),
    "two rates": (
        {
            "inputs": [{**TENSOR, "parameters": {"sampling_rate": 8000}}],
            "parameters": {"sampling_rate": 16000},
        },
        {},
        400,
        "bad_request",
    ),
    "1e999": (HUGE, {}, 400, "bad_request"),
    "more than float32": ({"inputs": [{**TENSOR, "data": [1e300, 1]}]}, {}, 422, "non_finite"),
    "another output": ({"inputs": [TENSOR], "outputs": [{"name": "x"}]}, {}, 400, "bad_request"),
    "a rate of 1": ({"inputs": [TENSOR], "parameters": {"sampling_rate": 1}}, {}, 400, "bad_request"),
    "a rate of text": ({"inputs": [TENSOR], "parameters": {"sampling_rate": "x"}}, {}, 400, "bad_request"),
    "21 sounds": ({"inputs": [{**TENSOR, "shape": [21, 1], "data": [0.5] * 21}]}, {}, 413, "too_large"),
    "a header too long": (b"{}", {HEADER: "3"}, 400, "bad_request"),
    "a header below 0": (b"{}", {HEADER: "-1"}, 400, "bad_request"),
    "a header of digits": (b"{}", {HEADER: "9" * 5000}, 400, "bad_request"),
    "less binary data": (WHOLE[:-1], {HEADER: LENGTH}, 400, "bad_request"),
    "more binary data": (WHOLE + b"x", {HEADER: LENGTH}, 400, "bad_request"),
    "a size that lies": (*lying(binary_data_size=4), 400, "bad_request"),
    "NaN": (NAN, {HEADER: LENGTH}, 422, "non_finite"),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_TENSORS])
def test_what_cannot_be_answered_says_why(served: ServeProcess, name: str) -> None:
    path = "/score" if name in BAD else INFER
    body, headers, status, code = {**BAD, **BAD_TENSORS}[name]
    content = json.dumps(body) if isinstance(body, dict) else body
    answer = served.ask("POST", path, content, headers)
    assert (answer.status, code_of(path, answer)) == (status, code)
    assert "/proc" not in answer.content.decode()
    assert str(Path(__file__).parents[3]) not in answer.content.decode()


@pytest.mark.parametrize("path", ["/scores", "/v2/models/resnet/infer", "/v2/models/rrtn/versions/2/infer"])
def test_other_paths_and_models_are_not_found(served: ServeProcess, path: str) -> None:
    answer = served.post(path, b"x")
    assert (answer.status, code_of(path, answer)) == (404, "not_found")


def code_of(path: str, answer: Answer) -> str:
    """The code of an error, whose form is that of the path."""
    document = answer.document
    if path.startswith("/v2"):
        assert isinstance(document.pop("error"), str)
        assert list(document) == FIELDS
        return str(document["code"])
    assert list(document["error"]) == FIELDS
    return str(document["error"]["code"])


def test_another_method_and_other_origins(served: ServeProcess) -> None:
    refused = served.ask("GET", "/score")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    for path in ("/health", "/ready", "/metrics"):
        head = served.ask("HEAD", path)
        assert (head.status, head.content) == (200, b"")
    answer = served.ask(
        "OPTIONS", "/score", headers={"origin": "http://a.b", "access-control-request-method": "POST"}
    )
    assert answer.status == 405
    got = served.ask("GET", "/health", headers={"origin": "http://a.b"})
    assert not [name for name in {**answer.headers, **got.headers} if name.startswith("access-control")]


def test_longer_sounds_are_refused(served: ServeProcess, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(61 * 16000, np.int16), 16000)
    answer = served.post("/score", (tmp_path / "long.flac").read_bytes())
    assert (answer.status, answer.document["error"]["code"]) == (422, "too_long")


RAW = {
    "no HTTP": b"\x00\x01\x02garbage\r\n\r\n",
    "a length that is no number": HEAD + b"content-length: x\r\n\r\n",
    "two lengths": HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a length and chunks": HEAD + b"content-length: 1\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
    "a chunk that lies": HEAD + CHUNKED + b"ffffffffffffffffff\r\nab",
    "an endless head": b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000,
    "endless heads": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 70_000,
    "endless extensions of a chunk": HEAD + CHUNKED + b"1;" + b"a" * 400_000,
    "an upgrade": b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nhost: x\r\n\r\n",
    "no path": b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP 0.9": b"GET /\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_no_bytes_make_an_error_of_the_server(served: ServeProcess, name: str) -> None:
    with served.raw(b"") as connection:
        try:
            connection.sendall(RAW[name])
            connection.shutdown(socket.SHUT_WR)
            said = b"".join(iter(partial(connection.recv, 4096), b""))
        except OSError:  # closed while the rest was on its way
            said = b""
    assert not said or re.match(rb"HTTP/1.1 [1234]", said), said
    assert served.ask("GET", "/health").status == 200


def test_clients_that_go_disturb_nobody(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    before = len(os.listdir(f"/proc/{served.process.pid}/fd"))
    for part in (0, 1, 5000):
        served.raw(HEAD + b"content-length: 100000\r\n\r\n" + b"x" * part).close()
        served.raw(HEAD + b"content-length: %d\r\n\r\n" % (1 << 62)).close()
        whole = CLIPS[part % 2].read_bytes()
        served.raw(HEAD + b"content-length: %d\r\n\r\n" % len(whole) + whole).close()
        assert served.scores(CLIPS[0].read_bytes()) == pytest.approx(wanted[0], abs=1e-6)
    assert 'status="5' not in served.ask("GET", "/metrics").content.decode()
    while len(os.listdir(f"/proc/{served.process.pid}/fd")) > before:  # until the tests' own limit of time
        time.sleep(0.05)


def test_a_decoder_that_is_killed_is_replaced(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    for _ in range(3):
        os.kill(served.decoders()[0], signal.SIGKILL)
        calls = [partial(served.scores, path.read_bytes()) for path in CLIPS]
        for scores, right in zip(at_once(4, calls), wanted, strict=True):
            assert scores == pytest.approx(right, abs=1e-6)


def test_metrics_count_by_route_and_result(served: ServeProcess) -> None:
    served.post("/score", CLIPS[0].read_bytes())
    served.ask("GET", "/a/b")
    text = served.ask("GET", "/metrics").content.decode()
    count = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line[0] != "#"
    }
    assert count['rrtn_requests_total{path="/score",status="200"}'] >= 1
    assert count['rrtn_sounds_total{result="scored"}'] >= 1
    assert count["rrtn_audio_seconds_total"] > 0
    assert count["rrtn_sounds_waiting"] == 0
    assert 'path="/a/b"' not in text


@pytest.mark.parametrize(
    ("number", "word", "again"), [(signal.SIGTERM, "terminated", False), (signal.SIGHUP, "hung up", True)]
)
def test_a_signal_lets_it_answer_what_has_come(
    scorer: Scorer,
    wanted: list[dict[str, float]],
    tmp_path: Path,
    number: signal.Signals,
    word: str,
    again: bool,
) -> None:
    """A terminal may say twice that it ends."""
    server = ServeProcess(model_of(scorer), tmp_path)
    try:
        whole = CLIPS[0].read_bytes()
        with server.raw(HEAD + b"content-length: %d\r\n\r\n" % len(whole) + whole[:1000]) as connection:
            assert server.ask("GET", "/health").status == 200  # so the head has been read
            server.process.send_signal(number)
            while is_listening(server.port):
                time.sleep(0.02)
            if again:
                server.process.send_signal(number)
                time.sleep(0.2)
            connection.sendall(whole[1000:])
            said = b"".join(iter(partial(connection.recv, 4096), b""))
        code, (summary,) = server.end()
    finally:
        server.close()
    assert said.startswith(b"HTTP/1.1 200 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["scores"] == pytest.approx(wanted[0], abs=1e-6)
    assert (code, summary["error"]["exit_code"]) == (128 + number, 128 + number)
    assert (summary["scored"], summary["errors"]) == (1, {})
    assert server.err.read_text().splitlines()[-1].startswith(f"rrtn: {word} | it takes no more requests")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_second_signal_drops_what_has_come(scorer: Scorer, tmp_path: Path, number: signal.Signals) -> None:
    """Without a traceback, and long before the hour that the body may take."""
    server = ServeProcess(model_of(scorer), tmp_path, "--timeout", 3600)
    try:
        with server.raw(HEAD + b"content-length: 1000\r\n\r\nhalf") as connection:
            assert server.ask("GET", "/health").status == 200
            server.process.send_signal(number)
            while is_listening(server.port):
                time.sleep(0.02)
            server.process.send_signal(number)
            with suppress(ConnectionResetError):
                assert not connection.recv(4096).startswith(b"HTTP/1.1 200")
        code, (summary,) = server.end()
    finally:
        server.close()
    assert (code, summary["error"]["exit_code"], summary["scored"]) == (128 + number, 128 + number, 0)
    assert "Traceback" not in server.err.read_text()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_model_that_fails_ends_the_server(scorer: Scorer, tmp_path: Path) -> None:
    server = ServeProcess(model_of(scorer), tmp_path, RRTN_FAILPOINT="model.*:memory:2")  # 1 is the silence
    try:
        answer = server.post("/score", CLIPS[0].read_bytes())
        code, documents = server.end()
    finally:
        server.close()
    assert (answer.status, answer.document["error"]["code"]) == (503, "stopped")
    assert (code, documents[-1]["error"]["subject"]) == (5, "one clip")


def test_a_decoder_that_crashes_harms_no_other_request(
    scorer: Scorer, wanted: list[dict[str, float]], tmp_path: Path
) -> None:
    failing = {"RRTN_FAILPOINT": "read.*:sigsegv:3"}  # each decoder ends at its third sound
    server = ServeProcess(model_of(scorer), tmp_path, "--workers", 1, **failing)
    try:
        calls = [partial(server.scores, path.read_bytes()) for path in CLIPS[:4]]
        for scores, right in zip(at_once(4, calls), wanted[:4], strict=True):
            assert scores == pytest.approx(right, abs=1e-6)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("failpoint", "code", "subject"),
    [("read.*:sigsegv:all", 4, "a second of silence"), ("model.*:memory:all", 5, "one clip")],
)
def test_what_cannot_score_silence_does_not_start(
    tiny_model: Path, failpoint: str, code: int, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", failpoint)
    done = rrtn_serve(tiny_model, "--port", 0, "--json")
    assert done.returncode == code
    assert json.loads(done.stdout.splitlines()[-1])["error"]["subject"] == subject
    assert "Traceback" not in done.stderr


def rrtn_serve(*arguments: object, before: str = "") -> "subprocess.CompletedProcess[str]":
    code = f"import sys; sys.argv[0] = 'rrtn'\n{before}\nfrom rrtn.__main__ import main\nmain()"
    command = [sys.executable, "-c", code, "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_port_in_use_is_one_line(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = rrtn_serve(tiny_model, "--port", other.getsockname()[1])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Address already in use" in done.stderr


def test_a_body_of_any_size_is_no_limit(tiny_model: Path) -> None:
    done = rrtn_serve(tiny_model, "--max-mb", "inf")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--max-mb" in done.stderr


def test_without_the_extra_one_line_says_how_to_install_it(tiny_model: Path) -> None:
    done = rrtn_serve(tiny_model, before="sys.modules['fastapi'] = None")
    assert done.returncode == 2
    said = 'rrtn: fastapi | not installed, and rrtn serve needs it | pip install "fastapi>=0.115" "'
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_other_machines_are_warned_about(scorer: Scorer, tmp_path: Path) -> None:
    server = ServeProcess(model_of(scorer), tmp_path, "--host", "0.0.0.0")
    try:
        assert server.stop(signal.SIGINT)[0] == 130
    finally:
        server.close()
    assert (
        "warning: other machines can connect and send requests: there is no authentication"
        in server.err.read_text()
    )


def test_only_this_machine_by_default(served: ServeProcess, spec: FrontendSpec) -> None:
    assert served.first["url"].startswith("http://127.0.0.1:")
    assert "warning" not in served.err.read_text()
