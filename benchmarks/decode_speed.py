"""CPU time of decoding heatmaps: the codecs, which decode a batch at once, beside loops over its joints.

    python benchmarks/decode_speed.py [--rounds 40] [-o results/decode_speed.csv]

The loops are written in the plain manner of the zoos: the peaks of all maps are found by one argmax, then each joint of
each person is refined by itself. DARK's blur of each map is OpenCV's. One thread; a round times a loop, then its codec;
the figures are the least of the rounds. Both must find the same joints, or the program stops.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posezoo.bench.rows import merge_csv
from posezoo.codecs import get_codec

Decode = Callable[[NDArray[np.float32]], NDArray]  # maps (N, K, h, w) -> crop pixels (N, K, 2)
PEOPLE, JOINTS, WIDTH, HEIGHT, STRIDE = (32, 64), 17, 48, 64, 4
KERNEL = 11
CALLS = 5
COLUMNS = ["decode", "people", "joints", "loop, ms", "codec, ms", "times faster", "largest difference, crop pixels"]


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = Table(*COLUMNS, title=f"maps of {WIDTH}x{HEIGHT}, one thread, least of {arguments.rounds} rounds")
    rows = [
        compare(name, loop, people, arguments.rounds)
        for name, loop in (("heatmap-quarter", quarter_loop), ("heatmap-dark", dark_loop))
        for people in PEOPLE
    ]
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    if arguments.output:
        merge_csv(
            arguments.output, [dict(zip(COLUMNS, row, strict=True)) for row in rows], ("decode", "people", "processor")
        )


def compare(name: str, loop: Decode, people: int, rounds: int) -> list[str]:
    """A row of the table: a loop and the codec of that name on the same maps."""
    maps, codec = heatmaps(people), get_codec(name)

    def batch(maps: NDArray[np.float32]) -> NDArray:
        return codec.decode(maps)[0]

    difference = float(np.abs(loop(maps) - batch(maps)).max())
    if not difference < 1e-3:
        raise SystemExit(f"{name}: the loop and the codec differ by {difference:g} pixels")
    times = [(seconds(loop, maps), seconds(batch, maps)) for _ in range(rounds)]
    slow, fast = (1e3 * min(column) for column in zip(*times, strict=True))
    figures = [f"{slow:.2f}", f"{fast:.3f}", f"{slow / fast:.1f}", f"{difference:.1e}"]
    return [name, str(people), str(JOINTS), *figures]


def seconds(decode: Decode, maps: NDArray[np.float32]) -> float:
    """CPU time of one call, of a few in a row: a network has just written the maps, so they are in the cache."""
    start = time.process_time()
    for _ in range(CALLS):
        decode(maps)
    return (time.process_time() - start) / CALLS


def heatmaps(people: int) -> NDArray[np.float32]:
    """Gaussian blobs of different height and width with a little noise, some of them at the very edge."""
    rng = np.random.default_rng(0)
    center = rng.uniform(-2, 2, (people, JOINTS, 2)) + rng.uniform(0, 1, (people, JOINTS, 2)) * [WIDTH, HEIGHT]
    x, y = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    distance = (x - center[..., :1, None]) ** 2 + (y - center[..., 1:, None]) ** 2
    height, spread = rng.uniform(0.2, 1, (people, JOINTS, 1, 1)), rng.uniform(1.5, 2.5, (people, JOINTS, 1, 1))
    made = height * np.exp(-distance / (2 * spread**2)) + 0.01 * rng.standard_normal(distance.shape)
    return made.astype(np.float32)


def highest(maps: NDArray[np.float32]) -> NDArray:
    """The highest pixel of each map, (N, K, 2)."""
    people, joints, _, width = maps.shape
    flat = maps.reshape(people, joints, -1)
    where = np.argmax(flat, axis=2)
    pixels = np.stack([where % width, where // width], axis=2).astype(np.float32)
    pixels[np.max(flat, axis=2) <= 0] = 0
    return pixels


def quarter_loop(maps: NDArray[np.float32]) -> NDArray:
    """A quarter pixel towards the higher neighbour, joint by joint."""
    people, joints, height, width = maps.shape
    pixels = highest(maps)
    for person in range(people):
        for joint in range(joints):
            one = maps[person][joint]
            x = math.floor(pixels[person][joint][0] + 0.5)
            y = math.floor(pixels[person][joint][1] + 0.5)
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = np.array([one[y][x + 1] - one[y][x - 1], one[y + 1][x] - one[y - 1][x]])
                pixels[person][joint] += np.sign(slope) * 0.25
    return pixels * STRIDE


def dark_loop(maps: NDArray[np.float32]) -> NDArray:
    """A Newton step on the logarithm of the blurred map, joint by joint."""
    people, joints, height, width = maps.shape
    pixels = highest(maps)
    for person in range(people):
        for joint in range(joints):
            smooth = np.log(np.maximum(blurred(maps[person, joint]), 1e-10))
            x, y = int(pixels[person][joint][0]), int(pixels[person][joint][1])
            if 1 < x < width - 2 and 1 < y < height - 2:
                dx = 0.5 * (smooth[y][x + 1] - smooth[y][x - 1])
                dy = 0.5 * (smooth[y + 1][x] - smooth[y - 1][x])
                dxx = 0.25 * (smooth[y][x + 2] - 2 * smooth[y][x] + smooth[y][x - 2])
                dyy = 0.25 * (smooth[y + 2][x] - 2 * smooth[y][x] + smooth[y - 2][x])
                dxy = 0.25 * (smooth[y + 1][x + 1] - smooth[y - 1][x + 1])
                dxy -= 0.25 * (smooth[y + 1][x - 1] - smooth[y - 1][x - 1])
                if dxx * dyy - dxy**2 != 0:
                    hessian, gradient = np.array([[dxx, dxy], [dxy, dyy]]), np.array([dx, dy])
                    pixels[person][joint] -= np.linalg.inv(hessian) @ gradient
    return pixels * STRIDE


def blurred(one: NDArray[np.float32]) -> NDArray:
    """A map blurred with zeros outside, and given its former height."""
    border = (KERNEL - 1) // 2
    wide = cv2.GaussianBlur(np.pad(one, border), (KERNEL, KERNEL), 0)[border:-border, border:-border]
    return wide * (one.max() / wide.max())


if __name__ == "__main__":
    main()
