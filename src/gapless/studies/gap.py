"""``gapless gap``: how far what a supernet says of architectures is from what they are worth alone.

The way from the supernet to the answer alone is a chain of accuracies on the same images, which the search never saw;
its steps sum to the whole gap. Beside it: how well inherited accuracies rank architectures, how firmly the search had
decided, and what parameters, multiply-adds and chance would have said. Working definitions after the theme of arXiv
2008.01475 (the optimisation gap) and the measures of arXiv 2001.01431.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gapless.analysis.ranking import best_rank, bootstrap, kendall, recall, regret, rounded, spearman, stability
from gapless.analysis.statistics import mean
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.progress import stream
from gapless.core.settings import Natural, Sample, Seed, Threads, ranged
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable, Column
from gapless.engine.judge import BatchNorm
from gapless.engine.precision import Precision
from gapless.measure.gap import Yardstick
from gapless.reports import gap as report
from gapless.reports.show import write
from gapless.runs.checked import RunSettings
from gapless.runs.checkpoint import PATIENCE, held
from gapless.runs.run import Run
from gapless.runs.searched import TrainedSupernet, inherited, trained
from gapless.studies.alone import Size, Trainings, sizes, train_alone
from gapless.studies.defaults import GAP_ARCHS, GAP_BUDGETS, GAP_IMAGES
from gapless.studies.device import device_of, use_threads
from gapless.studies.jobs import OnJob
from gapless.tables import load_named

LATE = 10
"""Last epochs that say how firmly the search had decided."""
STATISTICS: tuple[BatchNorm, ...] = ("running", "batch", "recalibrated")
OnLine = Callable[[str], None]
Alone = Mapping[Size, Mapping[Arch, Sequence[float]]]


@dataclass(frozen=True)
class Step:
    """One accuracy of the chain.

    Attributes
    ----------
    name, what
        A word for tables, and what was measured, in a few more.
    accuracy
        Percent.
    seconds
        That it took; None for what was looked up.
    """

    name: str
    what: str
    accuracy: float
    seconds: float | None


@dataclass(frozen=True)
class Judged:
    """One architecture of the sample: percent by each predictor and its size, its ``truth`` in percent or None, and of
    each size at which it was trained from scratch the test accuracies of these trainings, in percent."""

    arch: str
    notation: str
    scores: Mapping[str, float]
    truth: float | None
    trainings: Mapping[Size, Sequence[float]]


@dataclass(frozen=True, eq=False)
class Gap:
    """What was measured; ``gap.json`` of the run holds the same.

    Attributes
    ----------
    run, notation
        The folder, and the answer.
    images, tested
        Number of test images by which accuracies were measured, and what they are (``ImageData.tested``); ``error`` is
        the standard error of one of them at 50 %, in points.
    truth
        What ``truth`` of the sample is: a column of the table, or the trainings from scratch; None where there is none.
    chain
        From the supernet to the answer alone.
    statistics
        The answer's accuracy with inherited weights, by each kind of statistics of batch normalisation.
    sample
        The answer first, then random architectures.
    measures
        Predictor -> measure -> value, over the sample, where there is a truth.
    ceiling
        Tau that noise allows: with a table that of a single training of each cell with the mean of several, by its own
        columns; else the mean tau between the orders of two trainings. None where neither is known.
    small
        How well the trainings from scratch at the supernet's own depth and width rank (``depth``: against ``truth``),
        and how well ``recalibrated`` ranks them (``sharing``); None where there are none, or that size is the full one.
    decisions
        For each decision, of the method's probabilities at its end: name, ``entropy`` as a share of the largest,
        ``margin`` between the two largest, ``kept``: that of the answer's option. Empty where it learnt none.
    fixing
        Accuracy as decision after decision of a soft mix is fixed: names and percent.
    seeds
        With other runs beside: ``runs``, the mean, ``largest`` and ``smallest`` ``tau`` between the rankings of the
        sample by every two of their supernets (``S-Tau``, statistics gathered anew), and ``agreement``: the share of
        the runs that the commonest option of a decision has, averaged over decisions. None without.
    late
        What the trace says of the last epochs: how many, and how often the answer changed in them; None where the
        answer was not read off scores.
    seconds
        Of all measurements.
    """

    run: str
    notation: str
    images: int
    tested: str
    error: float
    truth: str | None
    chain: tuple[Step, ...]
    statistics: Mapping[str, float]
    sample: tuple[Judged, ...]
    measures: Mapping[str, Mapping[str, Any]]
    ceiling: float | None
    small: Mapping[str, Mapping[str, Any]] | None
    decisions: tuple[Mapping[str, Any], ...]
    fixing: tuple[tuple[str, float], ...]
    seeds: Mapping[str, float] | None
    late: Mapping[str, int] | None
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@ranged
def gap(
    run: str | Path,
    *,
    table: str | Path | None = None,
    column: str | None = None,
    archs: Sample = GAP_ARCHS,
    images: Natural = GAP_IMAGES,
    budgets: Sequence[int] = GAP_BUDGETS,
    beside: Sequence[str | Path] = (),
    trainings: Trainings | None = None,
    begun: OnJob | None = None,
    device: str = "auto",
    threads: Threads = 0,
    seed: Seed = 0,
    told: OnLine | None = None,
) -> Gap:
    """Measure the gap of a finished search, and write ``gap.json`` into its folder; nothing else there changes, but for
    the folder ``alone`` of trainings from scratch.

    Parameters
    ----------
    run
        Folder of a search that trained a supernet.
    table, column
        A benchmark table (:func:`gapless.tables.load`), and which of its accuracies is the truth; by default the
        table's own.
    archs
        Random architectures beside the answer.
    images
        Test images, the same for all; all, where there are fewer.
    budgets
        Batches of fine-tuning, ascending, after each of which architectures are judged again; () tunes none.
    beside
        Finished searches of the same space and images that differ by their seeds, to see how far they agree.
    trainings
        How all of the sample are trained from scratch (:class:`gapless.studies.alone.Trainings`): at the supernet's
        depth and width, and without a table at those at which the space trains alone: that is the truth then. They go
        on where they were interrupted. None trains nothing.
    begun
        Called as trainings begin and come to their end.
    device, threads
        Where to measure: ``auto``, ``cpu``, ``cuda``; CPU threads, of which 0 leaves PyTorch's own.
    seed
        Of the sample.
    told
        Is told in a line of each thing measured.

    Raises
    ------
    UserError
        Where the run has no supernet, the table does not fit, a number is out of range, or a training failed.
    Stopped
        When interrupted in the trainings from scratch, which are saved.
    """
    if list(budgets) != sorted(set(budgets)) or any(b < 1 for b in budgets):
        raise UserError(f"`budgets` must be ascending numbers of batches from 1 on, such as 8 64; got {list(budgets)}.")
    source, _ = trained(run)
    arch, space = source.found()
    truth = None
    if table is not None:
        rows = load_named(table)
        rows.check(space, f"{run} searched")
        rows.place(arch)
        truth = Truth(rows, rows.accuracy(column or rows.default_column))
    others = [trained(path)[0] for path in beside]
    for other in others:
        if other.found()[1].decisions != space.decisions:
            raise UserError(f"`beside` must be runs of the same space; {other.path} searched another than {run}.")
        if other.recipe().data != source.recipe().data:
            raise UserError(
                f"`beside` must be runs of the same images; {other.path} had other settings of data than {run}."
            )
    use_threads(threads)
    measured = _Measured(source, device_of(device), images, tuple(budgets), truth, told or (lambda _: None))
    sample = measured.drawn(archs, seed)
    alone = {} if trainings is None else measured.from_scratch(sample, trainings, begun)
    found = measured.all(sample, alone, others)
    with held(source, patience=PATIENCE):
        source.write_listed(report.NAME, found.plain())
    return found


@dataclass(frozen=True, eq=False)
class Truth:
    """What architectures are worth alone: a column of accuracies of a benchmark table."""

    rows: BenchmarkTable
    column: Column

    def of(self, arch: Arch) -> float:
        """Return the accuracy of an architecture in percent, to four decimals."""
        return self.rows.row(arch)[self.column.name]


class _Measured:
    """The measurements of one run; what was judged once is not judged again."""

    def __init__(
        self,
        source: Run,
        device: torch.device,
        images: int,
        budgets: tuple[int, ...],
        table: Truth | None,
        told: OnLine,
    ) -> None:
        precision: Precision = RunSettings.of(source.recipe()).precision
        self.precision: Precision = "float32" if precision == "bfloat16" else precision
        self.device, self.images, self.budgets = device, images, budgets
        self.source, self.table, self.told = source, table, told
        self.arch, _ = source.found()
        self.records = source.records()
        self.by = self.opened(source)
        self.rate = max(self.records[-1]["lr"], self.by.train.lr / 100)
        self.known: dict[tuple[Arch, BatchNorm], float] = {}
        self.trained: dict[Arch, list[float]] = {}

    def opened(self, run: Run) -> Yardstick:
        found = TrainedSupernet.of(run, self.device, self.precision)
        bench, train = found.bench, found.resolved.train
        return Yardstick(bench, found.method, bench.feed.data, train, images=self.images, precision=self.precision)

    def inherited(self, arch: Arch, bn: BatchNorm) -> float:
        if (arch, bn) not in self.known:
            self.known[arch, bn] = self.by.inherited(arch, bn)
        return self.known[arch, bn]

    def tuned(self, arch: Arch) -> list[float]:
        if arch not in self.trained:
            self.trained[arch] = self.by.tuned(inherited(self.source, arch, self.space), self.budgets, self.rate)
        return self.trained[arch]

    @property
    def space(self) -> Space:
        return self.by.space

    def from_scratch(self, archs: Sequence[Arch], asked: Trainings, told: OnJob | None) -> Alone:
        at = sizes(self.source)
        if self.table is not None:
            at.pop("full")
        if not at:
            raise UserError(
                f"The table says what architectures are worth at full size, and the supernet of {self.source.path} has "
                "that depth and width: leave `trainings` out, or `table`."
            )
        return train_alone(self.source, archs, at, asked, told)

    def all(self, archs: Sequence[Arch], alone: Alone, others: Sequence[Run]) -> Gap:
        begun, mixes = time.perf_counter(), self.by.mixes()
        chain, statistics = self.chain(mixes, alone)
        sample = self.sample(archs, alone)
        measures = self.measures(sample)
        fixing: list[tuple[str, float]] = []
        if len(mixes) == 1 and mixes[0].weight.dim() == 2 and ((mixes[0].weight != 0).sum(dim=-1) > 1).any():
            self.told("fixing the decisions of the mix one after another")
            fixing = self.by.profile(self.arch, mixes[0])
        images = len(self.by.index)
        return Gap(
            run=str(self.source.path),
            notation=self.space.write(self.arch),
            images=images,
            tested=self.by.data.tested,
            error=100 * math.sqrt(0.25 / images),
            truth=self.truth(alone),
            chain=tuple(chain),
            statistics=statistics,
            sample=tuple(sample),
            measures=measures,
            ceiling=self.ceiling(sample),
            small=self.small(sample),
            decisions=tuple(self.decisions()),
            fixing=tuple(fixing),
            seeds=self.seeds(sample, others),
            late=self.late(),
            seconds=round(time.perf_counter() - begun, 1),
        )

    # ------------------------------------------------------------------ the chain

    def chain(self, mixes: list[Mix], alone: Alone) -> tuple[list[Step], dict[str, float]]:
        found: list[Step] = []

        def step(name: str, what: str, measure: Callable[[], float]) -> float:
            begun = time.perf_counter()
            value = measure()
            found.append(Step(name, what, round(value, 4), round(time.perf_counter() - begun, 1)))
            self.told(f"{name}: {value:.2f} %, {what}")
            return value

        def looked_up(name: str, what: str, value: float) -> None:
            found.append(Step(name, what, round(value, 4), None))
            self.told(f"{name}: {value:.2f} %, {what}")

        many = f"the mean of {len(mixes)} draws of its mix" if len(mixes) > 1 else "under its final mix"
        step("supernet", f"{many}, by {self.by.bn} statistics", lambda: self.by.supernet(mixes))
        step("discretised", "the answer with the supernet's weights", lambda: self.inherited(self.arch, self.by.bn))
        step("recalibrated", "its statistics gathered anew", lambda: self.inherited(self.arch, "recalibrated"))
        statistics = {str(bn): round(self.inherited(self.arch, bn), 4) for bn in STATISTICS}
        if self.budgets:
            what = f"trained on for {self.budgets[-1]} batches at a rate of {self.rate:.2g}"
            step("tuned", what, lambda: self.tuned(self.arch)[-1])
        trained = {size: by_arch[self.arch] for size, by_arch in alone.items()}
        if small := trained.get("small"):
            what = f"trained from scratch at the supernet's depth and width, {_trained(len(small))}"
            looked_up("retrained", what, mean(small))
        if self.table is not None:
            value = self.table.of(self.arch)
            looked_up("alone", f"trained from scratch at full size: {self.table.column.name} of the table", value)
        elif full := trained.get("full"):
            looked_up("alone", f"trained from scratch at full size, {_trained(len(full))}", mean(full))
        return found, statistics

    def truth(self, alone: Alone) -> str | None:
        """Return what the truth is, in words; None without."""
        if self.table is not None:
            return self.table.column.name
        return f"test accuracy from scratch, {_trained(len(alone['full'][self.arch]))}" if "full" in alone else None

    # ------------------------------------------------------------------ the sample

    def drawn(self, archs: int, seed: int) -> list[Arch]:
        drawn = (self.space.sample(stream(seed, "gap sample", i)) for i in itertools.count())
        tries = itertools.islice(drawn, 100 * archs)
        distinct = list(dict.fromkeys([self.arch, *tries]))[: archs + 1]
        if len(distinct) <= archs:
            raise UserError(f"`archs` is {archs}, but the space hardly has as many architectures. Ask for fewer.")
        return distinct

    def sample(self, archs: Sequence[Arch], alone: Alone) -> list[Judged]:
        found = []
        for number, arch in enumerate(archs, start=1):
            found.append(self.judged(arch, {size: tuple(by_arch[arch]) for size, by_arch in alone.items()}))
            told = ", ".join(f"{name} {value:.4g}" for name, value in found[-1].scores.items())
            self.told(f"architecture {number}/{len(archs)}: {told}")
        return found

    def judged(self, arch: Arch, trainings: Mapping[Size, Sequence[float]]) -> Judged:
        text, sizes = self.space.write(arch), size_of(self.space.alone(), arch)
        scores = {
            "inherited": self.inherited(arch, self.by.bn),
            "recalibrated": self.inherited(arch, "recalibrated"),
        }
        if self.budgets:
            scores |= {f"tuned {n}": value for n, value in zip(self.budgets, self.tuned(arch), strict=True)}
        if "small" in trainings:
            scores["retrained"] = mean(trainings["small"])
        scores = {name: round(value, 4) for name, value in scores.items()} | sizes
        truth = None
        if self.table is not None:
            truth = self.table.of(arch)
        elif "full" in trainings:
            truth = round(mean(trainings["full"]), 4)
        return Judged(str(arch), text, scores, truth, trainings)

    def measures(self, sample: list[Judged]) -> dict[str, dict[str, Any]]:
        truth = [judged.truth for judged in sample if judged.truth is not None]
        if not truth:
            return {}
        return {name: ranked([judged.scores[name] for judged in sample], truth) for name in sample[0].scores}

    def small(self, sample: list[Judged]) -> dict[str, dict[str, Any]] | None:
        if "retrained" not in sample[0].scores:
            return None
        here = [judged.scores["retrained"] for judged in sample]
        found = {"sharing": ranked([judged.scores["recalibrated"] for judged in sample], here)}
        truth = [judged.truth for judged in sample if judged.truth is not None]
        return {**found, "depth": ranked(here, truth)} if truth else found

    def ceiling(self, sample: list[Judged]) -> float | None:
        """Return what noise allows (see :class:`Gap`)."""
        if self.table is None:
            trainings = [judged.trainings.get("full", ()) for judged in sample]
            again = list(zip(*trainings, strict=True))
            return _known(stability(again)[0]) if len(again) > 1 else None
        column = self.table.column
        if not column.repeated_by:
            return None
        rows = [self.table.rows.row(self.space.read(judged.notation)) for judged in sample]
        return _known(kendall([row[column.repeated_by] for row in rows], [row[column.name] for row in rows]))

    # ------------------------------------------------------------------ how firmly it had decided

    def decisions(self) -> list[dict[str, Any]]:
        """Return what the method's probabilities say of each decision; nothing where they never told options apart."""
        with torch.no_grad():
            weight = self.by.method.probabilities().detach().cpu().double()
        legal = self.space.legal
        if all(float(row[mask].max() - row[mask].min()) < 1e-12 for row, mask in zip(weight, legal, strict=True)):
            return []
        found = []
        for row, decision in enumerate(self.space.decisions):
            p = weight[row][legal[row]]
            if len(p) < 2:
                continue
            top = p.topk(2).values
            entropy = float(-torch.special.xlogy(p, p).sum()) / math.log(len(p))
            option = self.arch.get(decision.name)
            kept = 0.0 if option is None else float(weight[row][decision.options.index(option)])
            found.append(
                {
                    "name": decision.name,
                    "entropy": round(entropy, 4),
                    "margin": round(float(top[0] - top[1]), 4),
                    "kept": None if option is None else round(kept, 4),
                }
            )
        return found

    def seeds(self, sample: list[Judged], others: Sequence[Run]) -> dict[str, float] | None:
        """Return what runs beside say: how alike their supernets rank the sample, and their answers."""
        if not others:
            return None
        rankings, answers = [[judged.scores["recalibrated"] for judged in sample]], [self.arch]
        archs = [Arch.parse(judged.arch) for judged in sample]
        for other in others:
            by = self.opened(other)
            rankings.append([round(by.inherited(arch, "recalibrated"), 4) for arch in archs])
            answers.append(other.found()[0])
            self.told(f"{other.path} has judged the sample, too")
        mean, largest, smallest = stability(rankings)
        shares = []
        for decision in self.space.decisions:
            options = [answer.get(decision.name) for answer in answers]
            shares.append(max(map(options.count, options)) / len(options))
        agreement = sum(shares) / len(shares)
        values = {"tau": mean, "largest": largest, "smallest": smallest, "agreement": agreement}
        return {"runs": len(answers), **{name: round(value, 4) for name, value in values.items()}}

    def late(self) -> dict[str, int] | None:
        if self.source.judged()["archs"]:
            return None
        last = [record["arch"] for record in self.records[-LATE:]]
        changes = sum(a != b for a, b in itertools.pairwise(last))
        return {"epochs": len(last), "changes": changes, "distinct": len(set(last))}


def ranked(scores: Sequence[float], truth: Sequence[float]) -> dict[str, Any]:
    """Return what is said of a ranking: ``tau`` with its ``interval``, ``sparse_tau`` (both rounded to 0.1), ``rho``,
    ``recall`` of the best tenth (at least 3), ``best_rank`` and ``regret`` by how many are taken, ``ties``: pairs that
    the scores do not tell apart."""
    n = len(scores)
    k = max(3, n // 10)
    low, high = bootstrap(scores, truth)
    equal = sum(a == b for a, b in itertools.combinations(scores, 2))
    return {
        "n": n,
        "ties": equal,
        "tau": _known(kendall(scores, truth)),
        "interval": [_known(low), _known(high)],
        "sparse_tau": _known(kendall(rounded(scores), rounded(truth))),
        "rho": _known(spearman(scores, truth)),
        "recall": {str(k): round(recall(scores, truth, k), 4)},
        "best_rank": {str(m): best_rank(scores, truth, m) for m in (1, 3)},
        "regret": {str(m): round(regret(scores, truth, m), 4) for m in (1, 3, 5) if m <= n},
    }


def _trained(count: int) -> str:
    return "one training" if count == 1 else f"the mean of {count} trainings"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


@dataclass(frozen=True, eq=False)
class Page:
    """The page of a gap, written: its file, and what it says."""

    path: Path
    findings: tuple[report.Finding, ...]


def drawn(run: str | Path) -> Page:
    """Write ``gap.md`` and its figures, from ``gap.json``, into the folder of a run.

    Raises
    ------
    UserError
        Where the gap was not measured yet.
    """
    source = Run.open(run)
    told = report.read(source)
    files = write(report.figures(told), source.path, "svg")
    source.write("gap.md", report.page(told, {name: path.name for name, path in files.items()}))
    return Page(source.path / "gap.md", tuple(report.findings(told)))
