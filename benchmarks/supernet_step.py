"""Time one forward and backward pass of a supernet: our reference, our fused execution, and the official code.

All run interleaved in one process on the same weights and images; ratios are medians over pairs. The last line is one
JSON object. Without ``--official`` only our own executions are compared. ``--memory`` measures peaks, each in a fresh
process; ``--case single_path`` compares one-hot steps with steps of the network alone, and ``--case masked`` on a GPU
steps under masks of grouped dropout that are launched with those that are replayed with all options.

    python benchmarks/supernet_step.py --case darts --official PATH/TO/quark0-darts
    python benchmarks/supernet_step.py --case darts --official PATH/TO/quark0-darts --memory --batch 64
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from opponents import REPOSITORIES, SPACES, arch_parameters, build, mix_of
from torch import Tensor

from gapless.core.machine import device_name, processor
from gapless.core.mix import Mix
from gapless.core.progress import Progress, seeded, stream
from gapless.engine.graphs import PATIENCE, Graphs
from gapless.engine.memory import keep_memory
from gapless.engine.precision import arithmetic
from gapless.engine.supernet import Execution, Supernet
from gapless.methods.dropnas import DropNAS

CELLS = 20
"""Architectures of the single-path case."""


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=SPACES, default="darts")
    parser.add_argument("--official", help="checkout of " + ", ".join(f"{v} ({k})" for k, v in REPOSITORIES.items()))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "tf32"), default="float32")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recompute", action="store_true", help="compute our cells again in the backward pass")
    parser.add_argument("--graphs", action="store_true", help="replay our fused steps as CUDA graphs")
    parser.add_argument("--memory", action="store_true", help="measure peak memory, each in a fresh process")
    parser.add_argument("--alone", choices=("fused", "reference", "official"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with arithmetic(torch.device(args.device), args.precision):
        if args.alone:
            print(json.dumps(peak(args)))
            return
        found = memory(args) if args.memory else {}  # first, while this process is small
        kinds = {"single_path": single_path, "masked": masked}
        found |= kinds.get(args.case, relaxed)(args)
    found |= {
        "case": args.case, "batch": args.batch, "device": args.device, "precision": args.precision,
        "threads": args.threads, "recompute": args.recompute, "graphs": args.graphs, "torch": torch.__version__,
        "machine": device_name(torch.device(args.device)) if args.device != "cpu" else processor(),
    }  # fmt: skip
    print(json.dumps(found))


# ---------------------------------------------------------------------- what is timed


class Ours:
    """Our supernet with a mix that follows from the official architecture parameters."""

    def __init__(
        self,
        case: str,
        execution: Execution,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        graphs: bool = False,
    ) -> None:
        self.case = case
        with seeded(0, "benchmark"):
            self.supernet = Supernet(SPACES[case], execution, recompute=recompute)
        self.supernet.to(device, dtype).train()
        self.run = Graphs(self.supernet, self.supernet) if graphs else self.supernet
        self.weights = list(self.supernet.parameters())
        self.arch = [a.to(device, dtype).requires_grad_() for a in arch_parameters(case)]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run forward and backward, and return the logits."""
        for p in [*self.weights, *self.arch]:
            p.grad = None
        logits: Tensor = self.run(images, mix_of(self.case, self.arch))
        F.cross_entropy(logits, labels).backward()
        return logits.detach()


def batch_of(
    args: argparse.Namespace, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return random images and labels, the same at every call."""
    generator = stream("benchmark", "images")
    images = torch.randn(args.batch, 3, 32, 32, generator=generator, dtype=torch.float64).to(device, dtype)
    return images, torch.randint(10, (args.batch,), generator=generator).to(device)


def seconds(step: Callable[[], object], args: argparse.Namespace) -> float:
    """Time one call, to the end of what it started on the device."""
    cuda = args.device != "cpu"
    if cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.precision == "bfloat16"):
        step()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def quartiles(values: list[float]) -> list[float]:
    """Return lower quartile, median, upper quartile."""
    return [round(q, 4) for q in statistics.quantiles(values if len(values) > 1 else values * 2, n=4)]


def relaxed(args: argparse.Namespace) -> dict[str, object]:
    """Compare soft steps."""
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_memory()
    images, labels = batch_of(args, device)
    runners: dict[str, Callable[[], Tensor]] = {}
    fused = Ours(args.case, "fused", device, recompute=args.recompute, graphs=args.graphs)
    reference = Ours(args.case, "reference", device)
    runners["fused"] = lambda: fused.step(images, labels)
    runners["reference"] = lambda: reference.step(images, labels)
    found: dict[str, object] = {}
    truth = Ours(args.case, "reference", device, torch.float64)
    exact = truth.step(*batch_of(args, device, torch.float64))
    gradient = torch.cat([a.grad.flatten() for a in truth.arch])
    archs = {"fused": fused.arch, "reference": reference.arch}
    if args.official:
        opponent = build(args.case, args.official, fused.supernet.network, fused.arch, device)
        runners["official"] = lambda: opponent.step(images, labels)
        archs["official"] = opponent.arch
        found["official_commit"] = opponent.commit
    del truth
    for name, step in runners.items():
        logits = step()
        off = (logits - exact).abs().max() / exact.abs().max()
        arrived = torch.cat([a.grad.flatten() for a in archs[name]])
        error = (arrived - gradient).abs().max() / gradient.abs().max()
        print(f"{name}: off by {off:.1e} (logits) and {error:.1e} (gradient of the architecture) of the largest entry")
        if name == "fused":
            found |= {"max_logit_difference": float(off), "mix_gradient_error": float(error)}
        elif name == "official":
            found |= {"official_logit_difference": float(off), "official_mix_gradient_error": float(error)}
    times: dict[str, list[float]] = {name: [] for name in runners}
    warm = PATIENCE + 1 if args.graphs else 1  # until passes are recorded
    for turn in range(args.pairs + warm):
        gc.collect()
        for name, step in runners.items():
            spent = seconds(step, args)
            if turn >= warm:
                times[name].append(spent)
    for name, values in times.items():
        print(f"{name}: {quartiles(values)} s")
        found[f"{name}_seconds"] = round(statistics.median(values), 4)
    for key, name in (("time_ratio", "official"), ("reference_ratio", "reference")):
        if name in times:
            ratios = [a / b for a, b in zip(times[name], times["fused"], strict=True)]
            found |= {key: round(statistics.median(ratios), 3), f"{key}_quartiles": quartiles(ratios)}
    return found


def single_path(args: argparse.Namespace) -> dict[str, object]:
    """Compare one-hot steps of the supernet with steps of the network alone, over uniform architectures."""
    device, space = torch.device(args.device), SPACES[args.case]
    if device.type == "cpu":
        keep_memory()
    images, labels = batch_of(args, device)
    supernet = Supernet(space).to(device).train()
    ratios: dict[str, list[float]] = {"fused": [], "reference": []}
    for i in range(CELLS):
        arch = space.sample(stream("benchmark", "cell", i))
        network, mix = supernet.inherit(arch).train(), space.one_hot(arch, device=device, dtype=images.dtype)

        def alone(network: torch.nn.Module = network) -> None:
            network.zero_grad(set_to_none=True)
            F.cross_entropy(network(images), labels).backward()

        def shared() -> None:
            supernet.zero_grad(set_to_none=True)
            F.cross_entropy(supernet(images, mix.leaves()), labels).backward()  # noqa: B023

        times: dict[str, list[float]] = {"alone": [], "fused": [], "reference": []}
        for turn in range(args.pairs + 1):
            for name in times:
                if name != "alone":
                    supernet.execution = name  # type: ignore[assignment]
                spent = seconds(alone if name == "alone" else shared, args)
                if turn:
                    times[name].append(spent)
        for name in ratios:
            ratios[name].append(statistics.median(times[name]) / statistics.median(times["alone"]))
    for name, values in ratios.items():
        print(f"{name}: one-hot step over the network's {statistics.mean(values):.3f} (mean), {quartiles(values)}")
    return {
        "time_ratio": round(statistics.mean(ratios["fused"]), 4),
        "time_ratio_quartiles": quartiles(ratios["fused"]),
        "reference_time_ratio": round(statistics.mean(ratios["reference"]), 4),
    }


def masked(args: argparse.Namespace) -> dict[str, object]:
    """Compare steps under masks that are drawn anew: launched one by one, and replayed with all options."""
    device, space = torch.device(args.device), SPACES[args.case]
    if device.type == "cpu":
        raise SystemExit("--case masked is about launches on a GPU: add --device cuda.")
    method = DropNAS(space).to(device)
    images, labels = batch_of(args, device)
    launched, replayed = (Supernet(space).to(device).train() for _ in range(2))
    graphs = Graphs(replayed, replayed)

    def step(run: Callable[[Tensor, Mix], Tensor], supernet: Supernet, turn: int) -> None:
        supernet.zero_grad(set_to_none=True)
        mix = method.mix(Progress(0, 1, turn)).leaves()
        F.cross_entropy(run(images, mix), labels).backward()
        graphs.rest()

    times: dict[str, list[float]] = {"launched": [], "replayed": []}
    for turn in range(args.pairs + 3 * PATIENCE):
        for name, run, supernet in (("launched", launched, launched), ("replayed", graphs, replayed)):
            spent = seconds(partial(step, run, supernet, turn), args)
            if turn >= 3 * PATIENCE:
                times[name].append(spent)
    ratios = [a / b for a, b in zip(times["launched"], times["replayed"], strict=True)]
    for name, values in times.items():
        print(f"{name}: {quartiles(values)} s")
    return {f"{name}_seconds": round(statistics.median(values), 4) for name, values in times.items()} | {
        "time_ratio": round(statistics.median(ratios), 3), "time_ratio_quartiles": quartiles(ratios),
    }  # fmt: skip


# ---------------------------------------------------------------------- memory


def resident() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # the other number is at least what the parent process held when it started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak(args: argparse.Namespace) -> dict[str, float]:
    """Run a few steps in this process and return the peak over the idle process, in MiB."""
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_memory()
    images, labels = batch_of(args, device)
    execution: Execution = "fused" if args.alone == "fused" else "reference"
    ours = Ours(args.case, execution, device, recompute=args.recompute and args.alone == "fused")
    step = ours.step
    if args.alone == "official":
        step = build(args.case, args.official, ours.supernet.network, ours.arch, device).step
        del ours
        gc.collect()
    small = images[:2], labels[:2]
    step(*small)  # the library's own first allocations belong to the idle process
    idle = torch.cuda.memory_allocated() if device.type == "cuda" else resident()
    for _ in range(3):
        step(images, labels)
    top = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident()
    return {"peak_mb": (top - idle) / 2**20}


def memory(args: argparse.Namespace) -> dict[str, object]:
    """Return the peaks of fresh processes, and ours over the official one."""
    peaks: dict[str, float] = {}
    for name in ("fused", "reference", *(["official"] if args.official else [])):
        command = [sys.executable, __file__, "--alone", name]
        for key in ("case", "batch", "device", "precision", "threads"):
            command += [f"--{key}", str(getattr(args, key))]
        command += ["--official", args.official] if args.official else []
        command += ["--recompute"] if args.recompute else []
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[name] = json.loads(out.splitlines()[-1])["peak_mb"]
        print(f"{name}: peak {peaks[name]:.0f} MiB over the idle process")
    found: dict[str, object] = {f"{name}_peak_mb": round(value) for name, value in peaks.items()}
    if "official" in peaks:
        found["memory_ratio"] = round(peaks["fused"] / peaks["official"], 4)
    return found


if __name__ == "__main__":
    main()
