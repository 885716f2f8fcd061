"""What a clip costs `rrtn serve`, beside `rrtn score`: time of the processors, the clients not counted.

    python benchmarks/serving.py BUNDLE [--clips 480] [--rounds 5] [--clients 16]

The test recordings are scored again and again: by a Scorer in this process, then as requests to a server,
round by round. Counted is the time of all processors that a process took with all that it has started, so
the speed of the machine and of the clients is in neither. The scores are compared.
"""

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import ratio, report
from rrtn.runtime import Scorer

TARGET = 0.8  # of the clips per CPU second of rrtn score
BURSTS = Path(__file__).parents[1] / "tests/fixtures/bursts"


def cpu_seconds(pid: int, *, without: int = 0) -> float:
    """Time of the processors that a process and its children have taken so far (s); one child is left out."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            number, _, rest = file.read_text().partition(" ")
            fields = rest.rpartition(")")[2].split()
            if (int(number) == pid or int(fields[1]) == pid) and int(number) != without:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(bundle: Path) -> Iterator[tuple[int, int]]:
    """`rrtn serve`; -> its process id and its port."""
    command = [sys.executable, "-m", "rrtn", "serve", str(bundle), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield process.pid, int(url.rpartition(":")[2])
        finally:
            process.terminate()


def answers(port: int, bodies: list[bytes], clients: int) -> list[dict[str, float]]:
    """The scores of each body, asked for by several clients at a time over connections that stay open."""
    scores: list[dict[str, float]] = [{} for _ in bodies]
    numbers, lock = iter(range(len(bodies))), threading.Lock()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return connection.close()
            connection.request("POST", "/score", bodies[number])
            scores[number] = json.loads(connection.getresponse().read())["scores"]

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clips", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    paths = sorted(path for path in BURSTS.iterdir() if path.suffix != ".md")
    paths = [paths[i % len(paths)] for i in range(options.clips)]
    bodies = [path.read_bytes() for path in paths]
    spent: dict[str, list[float]] = {"rrtn score": [], "rrtn serve": []}
    with Scorer(options.bundle) as scorer, server(options.bundle) as (pid, port):
        for number in range(options.rounds + 1):
            begin = cpu_seconds(os.getpid(), without=pid)
            wanted = [row.scores for row in scorer.score_files(paths)]
            middle, of_server = cpu_seconds(os.getpid(), without=pid), cpu_seconds(pid)
            assert answers(port, bodies, options.clients) == wanted
            if number:  # the first round warms up
                spent["rrtn score"].append(middle - begin)
                spent["rrtn serve"].append(cpu_seconds(pid) - of_server)
    report(
        "serving",
        {
            name: {"n": options.rounds, "cpu_ms_a_clip": round(1e3 * min(times) / options.clips, 2)}
            for name, times in spent.items()
        },
        ratios={
            f"clips per CPU second over rrtn score's, {options.clients} clients": ratio(
                spent["rrtn score"], spent["rrtn serve"]
            )
        },
        target=TARGET,
    )


if __name__ == "__main__":
    main()
