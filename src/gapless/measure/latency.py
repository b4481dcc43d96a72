"""Latency on a device as an additive table: what each option takes, over all its places, and what the rest takes.

The places are found as the bill of costs finds them (:class:`gapless.core.cost.Bill`): one pass through a network whose
decisions are answered by modules that note what they are asked. Equal questions are measured once. The operations are
measured alone and whole networks of a few architectures beside them, by turns, so that a slow moment of the machine
meets all alike; the constant is what the whole networks take beyond their entries.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core import files
from gapless.core.bound import Bound, Budget, cost_of, told
from gapless.core.cell import CellModule, CellSpec, Edge
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.machine import device_name
from gapless.core.network import ChosenEdge, ChosenSite
from gapless.core.op import zeros
from gapless.core.progress import seeded, stream
from gapless.core.space import Space
from gapless.engine.fit import fit

FORMAT = "gapless latency 1"
REPEATS = 15
"""Rounds of measurements, of which the median counts. Ours: the median of 15 does not mind seven disturbed ones."""
SAMPLES = 10
"""Whole networks that are measured beside the operations."""
ROUND = 1e-3
"""Seconds that one measurement on the CPU lasts at least, so that the clock's grain and one interrupt matter little."""
CALLS = 10
"""Calls in a row of one measurement on another device, which works them off while the next are being issued."""
TRIES = 5
"""Architectures that :func:`respecting` measures at most."""

Timer = Callable[[nn.Module, tuple[Tensor, ...]], float]
"""Maps a module in evaluation mode and its inputs to the milliseconds of one call."""


def stopwatch(device: torch.device | str) -> Timer:
    """Return a timer for modules on a device; it waits for the device before it reads the clock."""
    on = torch.device(device)

    def cpu(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
        calls, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < ROUND or not calls:
            module(*inputs)
            calls += 1
        return 1000 * passed / calls

    def other(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
        torch.accelerator.synchronize(on)
        begun = time.perf_counter()
        for _ in range(CALLS):
            module(*inputs)
        torch.accelerator.synchronize(on)
        return 1000 * (time.perf_counter() - begun) / CALLS

    return cpu if on.type == "cpu" else other


# ---------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Check:
    """A whole network beside what the table says of it, in milliseconds. ``predicted`` does not know ``measured``: its
    constant is that of the other networks."""

    arch: str
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Latencies in milliseconds, additive as the tables of :meth:`gapless.core.space.Space.cost_table`.

    Attributes
    ----------
    space
        At the size that was measured.
    device, threads, batch, torch
        What ran it: the device's name, CPU threads, images at once, PyTorch's version.
    table
        [D, O] float64: each option over all its places.
    constant
        What is outside the decisions; it can be a little below 0 where a network is faster than the sum of its parts.
    checks
        Whole networks of random architectures.
    """

    space: Space
    device: str
    threads: int
    batch: int
    torch: str
    table: Tensor
    constant: float
    checks: tuple[Check, ...]

    @property
    def prices(self) -> tuple[Tensor, float]:
        """Table and constant, as :func:`gapless.core.bound.budget` takes them."""
        return self.table, self.constant

    @cached_property
    def error(self) -> float:
        """The median over the checks of ``|predicted - measured| / measured``."""
        return statistics.median(abs(c.predicted - c.measured) / c.measured for c in self.checks)

    def predict(self, arch: Arch) -> float:
        """Return the milliseconds that the table says of an architecture."""
        return cost_of(arch, self.space, self.table, self.constant)

    def write(self, path: str | Path) -> None:
        """Write the table as JSON.

        Raises
        ------
        OSError
            Where the system refuses.
        """
        rows = zip(self.space.decisions, self.table.tolist(), strict=True)
        content = {
            "format": FORMAT,
            "unit": "ms",
            "device": self.device,
            "threads": self.threads,
            "batch": self.batch,
            "torch": self.torch,
            "space": _size(self.space),
            "table": {d.name: dict(zip(d.options, row, strict=False)) for d, row in rows},
            "constant": self.constant,
            "error": self.error,
            "checks": [asdict(check) for check in self.checks],
        }
        files.write(Path(path), (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: str | Path, space: Space) -> LatencyTable:
        """Read what ``write`` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path
            Of the file.
        space
            The space at the size of use, which the table must be of.

        Raises
        ------
        UserError
            Where there is no such file, it holds no such table, or one of another space or size.
        """
        text = files.read_bytes(path, "The latency file").decode(errors="replace")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, numbers of thousands of digits, deep nesting
            content = None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{path} is no latency file of Gapless, or only a part of one. Measure it again.")
        _same_space(path, content.get("space"), space)
        try:
            return cls(
                space,
                str(content["device"]),
                int(content["threads"]),
                int(content["batch"]),
                str(content["torch"]),
                _table(content["table"], space),
                _number(content["constant"]),
                tuple(
                    Check(str(c["arch"]), _number(c["predicted"]), _number(c["measured"])) for c in content["checks"]
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UserError(f"{path} is a latency file with a part missing or spoilt. Measure it again.") from None


def _size(space: Space) -> dict[str, Any]:
    """Return the name and the plain fields of a space."""
    plain = {f.name: getattr(space, f.name) for f in fields(space)}
    kept = {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | None)}
    return {"label": space.label or type(space).__name__, **kept}


def _same_space(path: str | Path, told: object, space: Space) -> None:
    wanted = _size(space)
    given = told if isinstance(told, dict) else {}
    for name, value in wanted.items():
        if name not in given or given[name] != value:
            raise UserError(
                f"{path} was measured for another network: {name} is {given.get(name, 'not told')} there, and {value} "
                "here. Measure it again at this size."
            )


def _table(told: Mapping[str, Mapping[str, Any]], space: Space) -> Tensor:
    if {name: set(row) for name, row in told.items()} != {d.name: set(d.options) for d in space.decisions}:
        raise ValueError("the table is of other decisions")
    table = torch.zeros(space.shape, dtype=torch.float64)
    for row, d in enumerate(space.decisions):
        table[row, : len(d.options)] = torch.tensor([_number(told[d.name][o]) for o in d.options], dtype=torch.float64)
    return table


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


# ---------------------------------------------------------------------- measuring


def measure(
    space: Space,
    device: torch.device | str = "cpu",
    *,
    batch: int = 1,
    repeats: int = REPEATS,
    samples: int = SAMPLES,
    threads: int | None = None,
    seed: int = 0,
    timer: Timer | None = None,
) -> LatencyTable:
    """Measure every option of a space on a device, in evaluation mode.

    Parameters
    ----------
    space
        At the size at which the architecture is to be used.
    device
        Where.
    batch
        Images at once.
    repeats
        Rounds of measurements, of which the median counts.
    samples
        Random architectures whose whole networks are measured beside; at least 2.
    threads
        CPU threads of PyTorch while measuring; None leaves them.
    seed
        Of weights, inputs and random architectures.
    timer
        How one call is measured; by default :func:`stopwatch`.

    Raises
    ------
    UserError
        For fewer than one image or repeat, or two samples.
    """
    for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("samples", samples, 2)):
        if value < least:
            raise UserError(f"{name} is {value}; latency needs at least {least}.")
    timer = timer or stopwatch(device)
    archs = [space.sample(stream(seed, "latency", i)) for i in range(samples)]
    with _threads(threads), torch.no_grad(), seeded(seed, "latency"):
        image = torch.randn(batch, *space.image_shape).to(device)
        places = Places(device, {d.name: d.options for d in space.decisions})
        space.build(places).to(device).eval()(image)
        networks = [space.network(arch).to(device).eval() for arch in archs]
        asked = [*places.questions.values(), *((network, (image,)) for network in networks)]
        medians = _medians(asked, repeats, timer)
        used = torch.get_num_threads()
    price = dict(zip(places.questions, medians, strict=False))
    table = torch.zeros(space.shape, dtype=torch.float64)
    for ask, option, key in places.uses:
        row = space.rows[ask]
        table[row, space.decisions[row].options.index(option)] += price[key]
    whole = medians[len(price) :]
    rests = [ms - cost_of(arch, space, table, 0.0) for arch, ms in zip(archs, whole, strict=True)]
    checks = []
    for i, (arch, ms) in enumerate(zip(archs, whole, strict=True)):
        without = statistics.median(rests[:i] + rests[i + 1 :])
        checks.append(Check(str(arch), cost_of(arch, space, table, without), ms))
    constant = statistics.median(rests)
    return LatencyTable(
        space, device_name(torch.device(device)), used, batch, torch.__version__, table, constant, tuple(checks)
    )


def measured(
    network: nn.Module,
    shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
    *,
    batch: int = 1,
    repeats: int = REPEATS,
    threads: int | None = None,
    timer: Timer | None = None,
) -> float:
    """Return the median milliseconds of a whole network on images of ``shape`` [C, H, W], in evaluation mode.

    The network is moved to the device and back into training where it was.
    """
    training = network.training
    with _threads(threads), torch.no_grad(), seeded("latency", "network"):
        image = torch.randn(batch, *shape).to(device)
        (ms,) = _medians([(network.to(device).eval(), (image,))], repeats, timer or stopwatch(device))
    network.train(training)
    return ms


def respecting(
    scores: Tensor, space: Space, budget: Budget, timed: Callable[[Arch], float], *, tries: int = TRIES
) -> tuple[Arch, float]:
    """Return an architecture whose network holds the bound on latency when it is measured, and its milliseconds.

    As :func:`gapless.engine.fit.fit`; but a table is a prediction. Where the network takes longer than the bound, the
    prediction is asked to be smaller by the same ratio, and the next best architecture is measured.

    Parameters
    ----------
    scores, space, budget
        As for ``fit``; the budget has a bound on latency.
    timed
        Maps an architecture to the measured milliseconds of its network.
    tries
        How many are measured at most.

    Raises
    ------
    UserError
        Where none of them holds the bound; the fastest is named.
    """
    most = next(bound.most for bound in budget.bounds if bound.unit == "latency")
    now, seen = budget, dict[float, Arch]()
    for _ in range(tries):
        try:
            arch = fit(scores, space, now)
        except UserError:
            if not seen:
                raise
            break
        ms = timed(arch)
        if ms <= most:
            return arch, ms
        seen[ms] = arch
        now = now.tightened("latency", budget.costs(arch)["latency"] * most / ms)
    fastest = min(seen)
    raise UserError(
        f"The table promises architectures within {told(most, 'latency')}, but of {len(seen)} that were measured none "
        f"is: the fastest takes {told(fastest, 'latency')} ({space.write(seen[fastest])}). "
        f"Try the `limit` {Bound('latency', float(f'{1.1 * fastest:.3g}'))}, or measure the table again on a "
        "quiet machine."
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _medians(asked: Sequence[Question], repeats: int, timer: Timer) -> list[float]:
    """Return the median of each question, all asked in each round; a first round only warms up."""
    times: list[list[float]] = [[] for _ in asked]
    for module, inputs in asked:
        timer(module, inputs)
    for _ in range(repeats):
        for found, (module, inputs) in zip(times, asked, strict=True):
            found.append(timer(module, inputs))
    return [statistics.median(found) for found in times]


# ---------------------------------------------------------------------- where options stand

Question = tuple[nn.Module, tuple[Tensor, ...]]
Key = tuple[Any, ...]


class Places:
    """Answers ``build`` (see :class:`gapless.core.choose.Choose`) with modules that note what each option would have to
    do, and pass on states of the right shape.

    Attributes
    ----------
    questions
        Key -> (module on the device, its inputs); equal questions have one key.
    uses
        (decision, option, key) for every place, after one pass.
    """

    def __init__(self, device: torch.device | str, options: Mapping[str, tuple[str, ...]]) -> None:
        self.device, self.options = device, options
        self.questions: dict[Key, Question] = {}
        self.uses: list[tuple[str, str, Key]] = []
        self.sites = 0

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return a cell whose edges note their options."""
        return CellModule(spec.cell, {e.key: _Edge(self, spec, e) for e in spec.cell.edges})

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return a site that notes its options and passes on the output of the first."""
        self.sites += 1
        return _Site(self, self.sites, ask, {o: make(o) for o in self.options[ask]})

    def note(self, ask: str, option: str, key: Key, make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> None:
        """Put a question down for an option; ``make`` builds the module where the question is new."""
        if key not in self.questions:
            noise = tuple(torch.randn(x.shape).to(self.device) for x in inputs)  # zeros can be faster than images
            self.questions[key] = (make().to(self.device).eval(), noise)
        self.uses.append((ask, option, key))


class _Edge(nn.Module):
    def __init__(self, places: Places, spec: CellSpec, edge: Edge) -> None:
        super().__init__()
        self.places, self.spec, self.edge = places, spec, edge

    def forward(self, x: Tensor) -> Tensor:
        spec, ask, stride = self.spec, self.edge.ask, self.edge.stride
        for label in self.places.options[ask]:
            op = spec.ops[label]
            if op.zero and spec.partial == 1:
                continue  # a stand-alone network leaves it out
            key = (op, tuple(x.shape), spec.partial, stride, spec.norm)
            self.places.note(ask, label, key, partial(self.make, label), (x,))
            y = zeros(x, stride)
            self.places.note(ask, label, ("sum", tuple(y.shape)), _Sum, (y, y))
        return zeros(x, stride)

    def make(self, label: str) -> nn.Module:
        return ChosenEdge(label, self.spec.build(self.edge, label), self.spec.partial, None)


class _Sum(nn.Module):
    """What a node does with the output of an edge."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Site(nn.Module):
    def __init__(self, places: Places, number: int, ask: str, options: dict[str, nn.Module]) -> None:
        super().__init__()
        self.places, self.number, self.ask = places, number, ask
        self.__dict__["options"] = options  # not children: a network has one of them only

    def forward(self, *inputs: Tensor) -> Tensor:
        options: dict[str, nn.Module] = self.__dict__["options"]
        for label, module in options.items():
            key = (self.number, label, *(tuple(x.shape) for x in inputs))
            self.places.note(self.ask, label, key, partial(ChosenSite, {label: module}), inputs)
        first = next(iter(options.values())).to(inputs[0].device).eval()
        output: Tensor = first(*inputs)
        return output
