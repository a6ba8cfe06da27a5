"""A soak of `posezoo serve`: several clients, good, bad and huge requests, on loopback, for a while.

    python benchmarks/soak.py [--seconds 300] [--clients 4] [--images SOURCE ...] [-o results/soak.csv]

The server is a process of its own. Each client sends one request after the other, drawn by chance from `KINDS`, and
knows what must come back: any other status, a wrong number of people, or no answer at all, counts as lost; an answer of
429 is asked for again. Told are the times by kind (p50, p95, p99), the server's memory (resident set, Linux) of the
second and the last tenth of the time, and what HTTP adds to the bare pipeline at one picture a request: the two are
timed in turns, in a server of one client and in this process, with as many threads.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import mean, median

import numpy as np
from rich.console import Console
from rich.table import Table

from posezoo.estimator import Estimator
from posezoo.files import atomic_path
from posezoo.media.images import find_images, read_image
from posezoo.predict import MIN_SCORE
from posezoo.suppress import person_scores

COLUMNS = ["what", "count", "lost", "p50_ms", "p95_ms", "p99_ms", "value", "unit", "date", "command"]
BODY_MB, EVERY_S, PAUSE_S = 8, 0.5, 0.02
BOUNDARY = "soak"


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        share: how often it is sent, relative to the others.
        body: what is sent.
        type: its Content-Type.
        status: what must come back.
        people: how many, in each picture; None: not looked at.
        query: options.
        announced: a Content-Length that is not the body's.
    """

    share: float
    body: bytes
    type: str
    status: int
    people: tuple[int, ...] | None = None
    query: str = ""
    announced: int | None = None


@dataclass
class Tally:
    """What the clients have seen."""

    times_s: dict[str, list[float]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    again: int = 0
    examples: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, seconds: float, wrong: str | None) -> None:
        with self.lock:
            self.times_s.setdefault(kind, []).append(seconds)
            if wrong is not None:
                self.lost[kind] += 1
                self.examples = [*self.examples, f"{kind}: {wrong}"][:10]


def main() -> None:
    """Read the arguments, soak, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100, help="pictures timed for the overhead")
    few = ["examples/basketball.png", "examples/grace_hopper.jpg", "examples/pedestrians_1.jpg"]
    parser.add_argument("--images", nargs="+", default=few, metavar="SOURCE")
    parser.add_argument("--threads", type=int, help="of the networks; default: one a core")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in find_images(arguments.images)]
    estimator = Estimator(threads=arguments.threads)
    kinds = make_kinds(files, estimator)
    with server(arguments.threads, arguments.clients) as (process, port):
        bare_ms, http_ms = overhead(estimator, files, port, arguments.rounds)
        tally, memory = soak(kinds, process.pid, port, arguments)
        process.terminate()
        ended = process.wait(60)
    report(tally, memory, (bare_ms, http_ms), ended, arguments)


def make_kinds(files: list[bytes], estimator: Estimator) -> dict[str, Kind]:
    """Every kind of request, with what the pipeline itself says to the good ones."""
    people = []
    for data in files:
        poses = estimator(read_image(data))
        people.append(int((person_scores(poses) >= MIN_SCORE).sum()))
    form = f"multipart/form-data; boundary={BOUNDARY}"
    good = {
        f"picture {row + 1}": Kind(60 / len(files), data, "image/*", 200, (people[row],))
        for row, data in enumerate(files)
    }
    return good | {
        "form of several": Kind(6, multipart(files), form, 200, tuple(people)),
        "form, one damaged": Kind(4, multipart([files[0], b"text"]), form, 200, (people[0], 0)),
        "drawn": Kind(4, files[0], "image/*", 200, None, "?output=picture"),
        "text": Kind(5, b"this is no picture" * 50, "image/jpeg", 400),
        "cut off": Kind(5, files[0][: len(files[0]) // 2], "image/*", 400),
        "wrong option": Kind(3, files[0], "image/*", 400, None, "?flip=perhaps"),
        "unknown model": Kind(3, files[0], "image/*", 404, None, "?model=/etc/passwd"),
        "wrong type": Kind(2, files[0], "text/html", 415),
        "too many pixels": Kind(3, huge_png(), "image/png", 413),
        "too large, announced": Kind(2, b"", "image/png", 413, announced=10**12),
        "too large, sent": Kind(2, files[0][:20] + b"\0" * (BODY_MB * 1_000_000), "image/png", 413),
    }


def multipart(files: list[bytes]) -> bytes:
    """A form of pictures."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'.encode()
    return b"".join(head + data + b"\r\n" for data in files) + f"--{BOUNDARY}--\r\n".encode()


def huge_png() -> bytes:
    """A small file whose header asks for 30 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@contextmanager
def server(threads: int | None, clients: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that is ready, and its port."""
    limits = ["--max-body-mb", str(BODY_MB), "--max-queue", str(max(2, clients - 1)), "--timeout", "60", "--no-log"]
    chosen = [] if threads is None else ["--threads", str(threads)]
    command = [sys.executable, "-m", "posezoo", "serve", "--port", "0", *limits, *chosen]
    environment = {key: value for key, value in os.environ.items() if key != "POSEZOO_TOKEN"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.match(r"ready: http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise SystemExit(f"error: the server ended with {process.wait()}: {''.join(lines)}")
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


def ask(connection: http.client.HTTPConnection, kind: Kind) -> tuple[int, bytes]:
    """One request."""
    headers = {"Content-Type": kind.type}
    if kind.announced is not None:
        headers["Content-Length"] = str(kind.announced)
    try:
        connection.request("POST", f"/v1/predict{kind.query}", kind.body, headers)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused while it was sent: the answer is there all the same
    answer = connection.getresponse()
    return answer.status, answer.read()


def overhead(estimator: Estimator, files: list[bytes], port: int, rounds: int) -> tuple[float, float]:
    """Milliseconds a picture, by the bare pipeline and over HTTP: the medians over all, taken in turns."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    bare, served = [], []

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - started)

    def over_http(data: bytes) -> None:
        status, _ = ask(connection, Kind(1, data, "image/*", 200))
        if status != 200:
            raise SystemExit(f"error: the server answered {status} to a single client")

    for turn in range(rounds + 5):
        data = files[turn % len(files)]
        times = timed(lambda data=data: estimator(read_image(data))), timed(lambda data=data: over_http(data))  # type: ignore[misc]
        if turn >= 5:  # the first warm up
            bare.append(times[0])
            served.append(times[1])
    connection.close()
    # of each picture its own median: pictures differ more than the two ways
    ways = [np.mean([median(way[row :: len(files)]) for row in range(len(files))]) for way in (bare, served)]
    return float(ways[0]), float(ways[1])


def soak(
    kinds: dict[str, Kind], pid: int, port: int, arguments: argparse.Namespace
) -> tuple[Tally, list[tuple[float, float]]]:
    """The clients at work, and the server's memory meanwhile: seconds and MB."""
    tally, started = Tally(), time.perf_counter()
    until = started + arguments.seconds
    threads = [
        threading.Thread(target=client, args=(seed, kinds, port, until, tally)) for seed in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while time.perf_counter() < until:
        memory.append((time.perf_counter() - started, resident_mb(pid)))
        time.sleep(EVERY_S)
    for thread in threads:
        thread.join()
    return tally, memory


def client(seed: int, kinds: dict[str, Kind], port: int, until: float, tally: Tally) -> None:
    """One request after the other, each until it has its answer."""
    chance = random.Random(seed)
    names, shares = list(kinds), [kind.share for kind in kinds.values()]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.perf_counter() < until:
        [name] = chance.choices(names, shares)
        kind = kinds[name]
        status = 429
        while status == 429:
            started = time.perf_counter()
            try:
                status, body = ask(connection, kind)
                wrong = check(kind, status, body)
            except (OSError, http.client.HTTPException) as err:
                status, wrong = 0, f"no answer: {err!r}"
                connection.close()
            if kind.announced is not None:
                connection.close()  # what was announced will not come
            if status == 429:
                with tally.lock:
                    tally.again += 1
                time.sleep(PAUSE_S)
        tally.note(name, time.perf_counter() - started, wrong)
    connection.close()


def check(kind: Kind, status: int, body: bytes) -> str | None:
    """What is wrong with an answer."""
    if status != kind.status:
        return f"{status} {body[:200]!r}, expected {kind.status}"
    if status != 200:
        return None if set(json.loads(body)["error"]) == {"code", "message"} else f"not our error: {body[:200]!r}"
    if kind.people is None:
        return None if body.startswith(b"\xff\xd8\xff") else "no JPEG"
    found = tuple(len(result["people"]) for result in json.loads(body)["results"])
    return None if found == kind.people else f"{found} people, expected {kind.people}"


def resident_mb(pid: int) -> float:
    """The memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(
    tally: Tally,
    memory: list[tuple[float, float]],
    overhead_ms: tuple[float, float],
    ended: int,
    arguments: argparse.Namespace,
) -> None:
    """Print the table, and store it."""
    rows: list[list[str]] = []
    every = [seconds for times in tally.times_s.values() for seconds in times]
    for name, times in [*sorted(tally.times_s.items()), ("all", every)]:
        lost = sum(tally.lost.values()) if name == "all" else tally.lost[name]
        points = [f"{1e3 * value:.1f}" for value in np.percentile(times, [50, 95, 99])]
        rows.append([name, str(len(times)), str(lost), *points, "", ""])
    tenth = max(1, len(memory) // 10)
    first, last = (mean(mb for _, mb in part) for part in (memory[tenth : 2 * tenth] or memory, memory[-tenth:]))
    bare, served = overhead_ms
    values = {
        "requests a second": (len(every) / arguments.seconds, "1/s"),
        "told to come again": (tally.again, "requests"),
        "resident, second tenth": (first, "MB"),
        "resident, last tenth": (last, "MB"),
        "bare pipeline, one picture": (bare, "ms"),
        "over HTTP, one picture": (served, "ms"),
        "overhead": (100 * (served / bare - 1), "percent"),
        "exit code": (ended, ""),
    }
    rows += [[name, "", "", "", "", "", f"{value:.1f}", unit] for name, (value, unit) in values.items()]
    table = Table(*COLUMNS[:8], title=f"{arguments.clients} clients, {arguments.seconds:g} s")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    for example in tally.examples:
        print(f"lost: {example}")
    if arguments.output:
        how = [date.today().isoformat(), "soak.py " + " ".join(sys.argv[1:])]
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *([*row, *how] for row in rows)])
    if tally.lost or ended:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
