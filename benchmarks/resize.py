"""How long a photograph takes to be resized, beside Pillow's box filter, which is not exact and crops nothing.

    python benchmarks/resize.py [--repeats 5]

Medians of interleaved repeats, in milliseconds, on one thread of NumPy (set OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from gapless.data.images import fit

CASES = ((6000, 8000, 224), (6000, 8000, 32), (375, 500, 224), (64, 64, 32), (32, 32, 16))
"""Height and width of an image, and the side of what it becomes."""


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print("| image | becomes | fit (ms) | box filter (ms) | ratio |\n|---|---|---|---|---|")
    for height, width, side in CASES:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image, planes = Image.fromarray(pixels), pixels.transpose(2, 0, 1)
        short = min(height, width)
        size = (width * side // short, height * side // short)
        ways = partial(fit, planes, side), partial(image.resize, size, Image.Resampling.BOX)
        pairs = [tuple(map(seconds, ways)) for _ in range(repeats)]
        ours, box = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"| {width}x{height} | {side}x{side} | {ours:.3f} | {box:.3f} | {ours / box:.1f} |")


if __name__ == "__main__":
    main()
