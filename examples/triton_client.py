"""Scores of recordings from a server that speaks KServe v2: `rrtn serve`, or NVIDIA Triton.

    python examples/triton_client.py burst.wav                          # rrtn serve, on this machine
    python examples/triton_client.py burst.wav --model rrtn_waveform    # what rrtn export --triton wrote

Needs `pip install "tritonclient[http]" soundfile`. For Triton it needs rrtn, too: there the client sets the
level and cuts the clip, as the model's configuration says.
"""

import argparse
import json

import soundfile
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput


def main() -> None:
    """Prints the scores of each recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs="+", help="audio files")
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--model", default="rrtn", help="default: that of rrtn serve")
    arguments = parser.parse_args()
    ask = scores_of_rrtn if arguments.model == "rrtn" else scores_of_triton
    with InferenceServerClient(arguments.url) as client:
        for path in arguments.recordings:
            print(json.dumps({"file": path, **ask(client, path, arguments.model)}))


def scores_of_rrtn(client: InferenceServerClient, path: str, model: str) -> dict[str, float]:
    """Sends the samples as they are; -> the score of each label."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    given = InferInput("waveform", [len(samples)], "FP32")
    given.set_data_from_numpy(samples.mean(axis=1))
    answer = client.infer(model, [given], parameters={"sampling_rate": rate})
    labels = client.get_model_metadata(model)["parameters"]["labels"]
    return dict(zip(labels, answer.as_numpy("scores")[0].tolist(), strict=True))


def scores_of_triton(client: InferenceServerClient, path: str, model: str) -> dict[str, float]:
    """Sends the clip that the model expects; -> the score of each label, the highest first."""
    from rrtn.runtime.model_input import ModelInput

    config = client.get_model_config(model)
    told = {name: value["string_value"] for name, value in config["parameters"].items()}
    clip_of = ModelInput(told["rrtn_input"], json.loads(told["rrtn_frontend"]))
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    (tensor,) = config["input"]
    clip = clip_of(samples.T, rate).reshape(1, *tensor["dims"])  # a batch of one
    given = InferInput(tensor["name"], list(clip.shape), "FP32")
    given.set_data_from_numpy(clip)
    # Triton puts the labels beside the scores where it is asked for classes: b"0.71:4:Joy".
    classes = InferRequestedOutput("scores", class_count=config["output"][0]["dims"][0])
    answer = client.infer(model, [given], outputs=[classes]).as_numpy("scores")
    scores = [entry.decode().split(":", 2) for entry in answer.ravel()]
    return {label: float(score) for score, _, label in scores}


if __name__ == "__main__":
    main()
