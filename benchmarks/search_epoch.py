"""Time whole epochs of a search on the DARTS space, data included: ours, and the official loop.

The search is first-order DARTS, or DrNAS (``--method drnas``) with all channels. Theirs is the official network and the
official architect, driven as ``train_search.py`` of quark0/darts or xiangning-chen/DrNAS drives them: two data loaders,
with two workers each in the former, which pad, crop, flip and normalise image by image (written here with Pillow, as
torchvision does it), and a new iterator over the second loader in every step. On a CPU the workers that start in every
step copy the memory map of a process of gigabytes, which is most of the official loop's time; ``--workers 0`` does
without. ``--ready`` leaves all of that out: the official loop finds its batches on the device, so that whole steps are
compared (ours still augments its images). Images are random; speed does not depend on what they show. Rounds are
interleaved; the last line is one JSON object.

    python benchmarks/search_epoch.py --official PATH/TO/quark0-darts --images 256 --batch 32
    python benchmarks/search_epoch.py --method drnas --official PATH/TO/DrNAS --images 256 --batch 32
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from opponents import EPOCHS, build, load
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gapless.core.machine import device_name, processor
from gapless.core.plan import Train
from gapless.core.progress import seeded, stream
from gapless.data.images import Augment, ImageData, Split
from gapless.engine.precision import arithmetic
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=EPOCHS, default="darts")
    parser.add_argument("--official", help="checkout of quark0/darts, or xiangning-chen/DrNAS")
    parser.add_argument("--images", type=int, default=512, help="half of them train the weights")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of each official loader, as published")
    parser.add_argument("--ready", action="store_true", help="official batches lie on the device, without loaders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    parser.add_argument("--graphs", action="store_true", help="replay our static passes as CUDA graphs")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    pixels = torch.randint(256, (args.images, 3, 32, 32), dtype=torch.uint8, generator=stream("benchmark", "pixels"))
    labels = torch.randint(10, (args.images,), generator=stream("benchmark", "labels"))
    runners: dict[str, Any] = {"ours": ours(args, pixels, labels, device)}
    if args.official:
        runners["official"] = official(args, pixels, labels, device)
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(args.rounds + 1):
        for name, epoch in runners.items():
            begun = time.perf_counter()
            trained = epoch()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                speeds[name].append(trained / (time.perf_counter() - begun))
    found: dict[str, Any] = {f"{name}_images_per_second": round(statistics.median(s), 1) for name, s in speeds.items()}
    if args.official:
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["official"], strict=True)]
        found["speed_ratio"] = round(statistics.median(ratios), 3)
        found["speed_ratios"] = [round(r, 3) for r in ratios]
    found |= {
        "method": args.method, "images": args.images, "batch": args.batch, "device": args.device,
        "precision": args.precision, "graphs": args.graphs, "workers": args.workers, "ready": args.ready,
        "threads": args.threads, "torch": torch.__version__,
        "machine": device_name(device) if device.type != "cpu" else processor(),
    }  # fmt: skip
    for name, values in speeds.items():
        print(f"{name}: {statistics.median(values):.1f} images that train the weights, a second")
    print(json.dumps(found))


def ours(args: argparse.Namespace, pixels: Tensor, labels: Tensor, device: torch.device) -> Any:
    """Return a function that trains an epoch and returns how many images trained the weights."""
    split = Split(pixels, labels)
    data = ImageData(
        "random", "random", tuple("0123456789"), split, split, (0.5,) * 3, (0.25,) * 3, Augment(pad=4, flip=True)
    )
    space = EPOCHS[args.method]
    method = DARTS(space) if args.method == "darts" else DrNAS(space, progressive=False)
    train = Train(epochs=10**6, batch=args.batch, validate_every=0)
    search = Search(space, method, data, train, device=device, precision=args.precision, graphs=args.graphs)
    records = search.run()

    def epoch() -> int:
        next(records)
        return len(pixels) // 2

    return epoch


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images that are cropped, flipped and normalised one by one."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.images = [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).numpy()]
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(self.images[index], border=4, fill=0)
        left, top = random.randint(0, 8), random.randint(0, 8)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return x.sub(0.5).div(0.25), self.labels[index]


def official(args: argparse.Namespace, pixels: Tensor, labels: Tensor, device: torch.device) -> Any:
    """Return the same of the official code."""
    with seeded(0, "benchmark"):
        supernet = Supernet(EPOCHS[args.method])
    arch = [1e-3 * torch.randn(14, supernet.space.shape[1]) for _ in range(2)]
    opponent = build(args.method, args.official, supernet.network, arch, device)
    network = opponent.network
    settings = SimpleNamespace(momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3)
    settings.reg_type, settings.reg_scale = "l2", 1e-3  # of DrNAS
    folder = "cnn" if args.method == "darts" else "."
    architect = load(args.official, [folder], "architect.py")[0].Architect(network, settings)
    optimiser = torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    half, pictures = len(pixels) // 2, Pictures(pixels, labels)

    def loader(begin: int, end: int) -> Iterable[Any]:
        if args.ready:
            x = pixels[begin:end].to(device).float().div(255).sub(0.5).div(0.25)
            return list(zip(x.split(args.batch), labels[begin:end].to(device).split(args.batch), strict=True))
        sampler = torch.utils.data.SubsetRandomSampler(range(begin, end))
        return DataLoader(
            pictures, args.batch, sampler=sampler, num_workers=args.workers, pin_memory=device.type == "cuda"
        )

    train, valid = loader(0, half), loader(half, len(pixels))
    amp = torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bfloat16")

    def epoch() -> int:
        with arithmetic(device, args.precision):
            return train_epoch()

    def train_epoch() -> int:
        for images, targets in train:
            network.train()
            images, targets = images.to(device), targets.to(device, non_blocking=True)
            other, others = next(iter(valid))
            with amp:
                architect.step(images, targets, other.to(device), others.to(device), 0.025, optimiser, unrolled=False)
                optimiser.zero_grad()
                loss = F.cross_entropy(network(images), targets)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5)
            optimiser.step()
            loss.item()
        return half

    return epoch


if __name__ == "__main__":
    main()
