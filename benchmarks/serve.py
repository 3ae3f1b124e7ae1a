"""A service under load: so many clients that each ask again as soon as they are answered.

    python -m benchmarks.serve --model=PLACE --run=WORKDIR [--clients 32] [--seconds 60]
                               [--batch 64]

Mentions are those of the run's test split, from raw text. The service is a process of its own on
this machine; so are the clients, which take a share of its cores. Before it starts, the same
mentions are linked by the library in batches of --batch, in this process; the last line is the
ratio of the two.
"""

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.link import queries_of
from drin_jax import Linker, Query
from drin_jax.command import keep_compiled


def bodies(queries: list[Query]) -> list[bytes]:
    """Requests to /link."""
    rows = [
        {"text": q.text, "span": q.span, "mention": None if q.span else q.mention} for q in queries
    ]
    return [json.dumps(row).encode() for row in rows]


class Client(threading.Thread):
    """Asks until it is told to stop; milliseconds of each answer, and what went wrong."""

    def __init__(self, address: str, asked: list[bytes], stop: threading.Event):
        super().__init__()
        self._address, self._asked, self._stop_now = address, asked, stop
        self.spent: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        parts = urlsplit(self._address)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        number = 0
        while not self._stop_now.is_set():
            body = self._asked[number % len(self._asked)]
            number += 1
            began = time.perf_counter()
            connection.request("POST", "/link", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            self.spent.append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                self.wrong.append(f"{answer.status} {content[:80]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    queries = queries_of(Path(args.run), 2000)
    keep_compiled()
    linker = Linker.from_pretrained(args.model)
    linker.warm_up(args.batch)
    began = time.perf_counter()
    for _ in linker.link_many(queries, batch=args.batch):
        pass
    library = len(queries) / (time.perf_counter() - began)
    command = [sys.executable, "-m", "drin_jax.serve", f"--model={args.model}", "--port=0"]
    server = subprocess.Popen(
        [*command, f"--batch={args.batch}"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = server.stdout.readline().split()[0]
    stop, asked = threading.Event(), bodies(queries)
    clients = [Client(address, asked[i:] + asked[:i], stop) for i in range(args.clients)]
    began = time.perf_counter()
    for client in clients:
        client.start()
    time.sleep(args.seconds)
    stop.set()
    for client in clients:
        client.join()
    seconds = time.perf_counter() - began
    server.terminate()
    server.wait()
    spent = np.concatenate([client.spent for client in clients])
    wrong = [one for client in clients for one in client.wrong]
    rate = len(spent) / seconds
    print(f"library, batches of {args.batch}: {library:.0f} mentions a second")
    print(
        f"{args.clients} clients for {seconds:.0f} s: {len(spent)} answers, {len(wrong)} errors, "
        f"{rate:.0f} a second, median {np.median(spent):.0f} ms, 99th percentile "
        f"{np.percentile(spent, 99):.0f} ms"
    )
    print(f"of the library's: {rate / library:.0%}")


if __name__ == "__main__":
    main()
