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

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.progress import stream
from gapless.core.ranking import best_rank, bootstrap, kendall, recall, regret, rounded, spearman, stability
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.engine.gap import Yardstick
from gapless.engine.judge import BatchNorm
from gapless.engine.precision import Precision
from gapless.report import gap as report
from gapless.report.show import write
from gapless.runs.run import Run
from gapless.runs.searched import Reopened, inherited, trained
from gapless.studies.session import device_of, use_threads
from gapless.tables import nasbench201

ARCHS, IMAGES, BUDGETS, LATE = 20, 2000, (8, 64), 10
"""Random architectures; test images; batches of fine-tuning (arXiv 2001.01431: 5 to 10, and 64); late epochs."""
STATISTICS: tuple[BatchNorm, ...] = ("running", "batch", "recalibrated")
Told = Callable[[str], None]


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
    """One architecture of the sample: percent by each predictor, its ``truth`` in percent or None, and its size."""

    arch: str
    notation: str
    scores: Mapping[str, float]
    truth: float | None


@dataclass(frozen=True, eq=False)
class Gap:
    """What was measured; ``gap.json`` of the run holds the same.

    Attributes
    ----------
    run, notation
        The folder, and the answer.
    images
        Test images by which accuracies were measured; ``error`` is the standard error of one of them at 50 %, in
        points.
    truth
        What ``truth`` of the sample is: a column of the table; None where there is none.
    chain
        From the supernet to the answer alone.
    statistics
        The answer's accuracy with inherited weights, by each kind of statistics of batch normalisation.
    sample
        The answer first, then random architectures.
    measures
        Predictor -> measure -> value, over the sample, where there is a truth.
    ceiling
        Tau that a single training of each cell has with the mean of several, by the table's own columns; None where
        there is no such pair.
    decisions
        For each decision of the final mix: name, ``entropy`` as a share of the largest, ``margin`` between the two
        largest weights, ``kept``: the mass on the option of the answer.
    fixing
        Accuracy as decision after decision is fixed: names and percent.
    seeds
        With other runs beside: ``runs``, the mean, ``largest`` and ``smallest`` ``tau`` between the rankings of the
        sample by every two of their supernets (``S-Tau``, statistics gathered anew), and ``agreement``: the share of
        the runs that the commonest option of a decision has, averaged over decisions. None without.
    late
        What the trace says of the last epochs: how many, and how often the answer changed in them.
    seconds
        Of all measurements.
    """

    run: str
    notation: str
    images: int
    error: float
    truth: str | None
    chain: tuple[Step, ...]
    statistics: Mapping[str, float]
    sample: tuple[Judged, ...]
    measures: Mapping[str, Mapping[str, Any]]
    ceiling: float | None
    decisions: tuple[Mapping[str, Any], ...]
    fixing: tuple[tuple[str, float], ...]
    seeds: Mapping[str, float] | None
    late: Mapping[str, int]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def gap(
    run: str | Path,
    *,
    table: str | Path | None = None,
    column: str = nasbench201.DEFAULT,
    archs: int = ARCHS,
    images: int = IMAGES,
    budgets: Sequence[int] = BUDGETS,
    beside: Sequence[str | Path] = (),
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    told: Told | None = None,
) -> Gap:
    """Measure the gap of a finished search, and write ``gap.json`` into its folder; nothing else there changes.

    Parameters
    ----------
    run
        Folder of a search that trained a supernet.
    table, column
        The NAS-Bench-201 table, and which of its accuracies is the truth.
    archs
        Random architectures beside the answer.
    images
        Test images, the same for all; all, where there are fewer.
    budgets
        Batches of fine-tuning, ascending, after each of which architectures are judged again; () tunes none.
    beside
        Finished searches of the same space and images that differ by their seeds, to see how far they agree.
    device, threads
        Where to measure: ``auto``, ``cpu``, ``cuda``; CPU threads, of which 0 leaves PyTorch's own.
    seed
        Of the sample.
    told
        Is told in a line of each thing measured.

    Raises
    ------
    UserError
        Where the run has no supernet, the table does not fit, or a number is out of range.
    """
    for name, value, least in (("archs", archs, 2), ("images", images, 1)):
        if value < least:
            raise UserError(f"--{name} is {value}; it must be at least {least}.")
    if list(budgets) != sorted(set(budgets)) or any(b < 1 for b in budgets):
        raise UserError(f"--budgets are {list(budgets)}; give ascending numbers of batches from 1 on, such as 8 64.")
    source, _ = trained(run)
    arch, space = source.found()
    rows = None if table is None else nasbench201.load(table)
    if rows is not None:
        if space.label != "nasbench201":
            raise UserError(f"A table holds cells of nasbench201; {run} searched {space.label}.")
        rows.row(space.write(arch))
        if column not in rows.columns:
            rows.rank(space.write(arch), column)
    others = [trained(path)[0] for path in beside]
    for other in others:
        if other.found()[1].decisions != space.decisions:
            raise UserError(f"--beside takes runs of the same space; {other.path} searched another than {run}.")
    begun = time.perf_counter()
    measured = _Measured(source, arch, rows, column, images, tuple(budgets), device, threads, told or (lambda _: None))
    measured.others = others
    found = measured.all(archs, seed, begun)
    source.write_json(report.NAME, found.plain())
    return found


class _Measured:
    def __init__(
        self,
        source: Run,
        arch: Arch,
        rows: nasbench201.Table | None,
        column: str,
        images: int,
        budgets: tuple[int, ...],
        device: str,
        threads: int,
        told: Told,
    ) -> None:
        use_threads(threads)
        precision: Precision = source.recipe().settings_of_run()["precision"]
        self.source, self.arch, self.rows, self.column, self.told = source, arch, rows, column, told
        self.budgets, self.images, self.others = budgets, images, list[Run]()
        self.device = device_of(device)
        self.precision: Precision = "float32" if precision == "bfloat16" else precision
        self.records = list(source.trace())
        self.by = self.opened(source)
        self.rate = max(self.records[-1]["lr"], self.by.train.lr / 100)

    def opened(self, run: Run) -> Yardstick:
        found = Reopened.of(run, self.device, self.precision)
        bench, train = found.bench, found.resolved.train
        return Yardstick(bench, found.method, bench.feed.data, train, images=self.images, precision=self.precision)

    @property
    def space(self) -> Space:
        return self.by.space

    def all(self, archs: int, seed: int, begun: float) -> Gap:
        mixes = self.by.mixes()
        chain, statistics = self.chain(mixes)
        sample = self.sample(archs, seed)
        measures = self.measures(sample)
        decisions = self.decisions(mixes[0]) if len(mixes) == 1 else ()
        fixing: list[tuple[str, float]] = []
        if decisions:
            self.told("fixing the decisions of the mix one after another")
            fixing = self.by.profile(self.arch, mixes[0])
        images = len(self.by.index)
        return Gap(
            run=str(self.source.path),
            notation=self.space.write(self.arch),
            images=images,
            error=100 * math.sqrt(0.25 / images),
            truth=None if self.rows is None else self.column,
            chain=tuple(chain),
            statistics=statistics,
            sample=tuple(sample),
            measures=measures,
            ceiling=self.ceiling(sample),
            decisions=tuple(decisions),
            fixing=tuple(fixing),
            seeds=self.seeds(sample),
            late=self.late(),
            seconds=round(time.perf_counter() - begun, 1),
        )

    # ------------------------------------------------------------------ the chain

    def chain(self, mixes: list[Mix]) -> tuple[list[Step], dict[str, float]]:
        found: list[Step] = []

        def step(name: str, what: str, measure: Callable[[], float]) -> float:
            begun = time.perf_counter()
            value = measure()
            found.append(Step(name, what, round(value, 4), round(time.perf_counter() - begun, 1)))
            self.told(f"{name}: {value:.2f} %, {what}")
            return value

        many = f"the mean of {len(mixes)} draws of its mix" if len(mixes) > 1 else "under its final mix"
        step("supernet", f"{many}, by {self.by.bn} statistics", lambda: self.by.supernet(mixes))
        step("discretised", "the answer with the supernet's weights", lambda: self.by.inherited(self.arch))
        step("recalibrated", "its statistics gathered anew", lambda: self.by.inherited(self.arch, "recalibrated"))
        statistics = {str(bn): round(self.by.inherited(self.arch, bn), 4) for bn in STATISTICS}
        if self.budgets:
            last = self.budgets[-1]
            child = inherited(self.source, self.arch, self.space)
            what = f"trained on for {last} batches at a rate of {self.rate:.2g}"
            step("tuned", what, lambda: self.by.tuned(child, self.budgets[-1:], self.rate)[0])
        if self.rows is not None:
            value = self.rows.row(self.space.write(self.arch))[self.column]
            found.append(Step("alone", f"trained from scratch at full size: {self.column} of the table", value, None))
            self.told(f"alone: {value:.2f} %, {self.column} of the table")
        return found, statistics

    # ------------------------------------------------------------------ the sample

    def sample(self, archs: int, seed: int) -> list[Judged]:
        drawn = (self.space.sample(stream(seed, "gap sample", i)) for i in itertools.count())
        tries = itertools.islice(drawn, 100 * archs)
        distinct = list(dict.fromkeys([self.arch, *tries]))[: archs + 1]
        if len(distinct) <= archs:
            raise UserError(f"--archs is {archs}, but the space hardly has so many architectures. Ask for fewer.")
        found = []
        for number, arch in enumerate(distinct, start=1):
            found.append(self.judged(arch))
            told = ", ".join(f"{name} {value:.4g}" for name, value in found[-1].scores.items())
            self.told(f"architecture {number}/{archs + 1}: {told}")
        return found

    def judged(self, arch: Arch) -> Judged:
        text, sizes = self.space.write(arch), size_of(self.space.alone(), arch)
        scores = {"inherited": self.by.inherited(arch), "recalibrated": self.by.inherited(arch, "recalibrated")}
        if self.budgets:
            child = inherited(self.source, arch, self.space)
            tuned = self.by.tuned(child, self.budgets, self.rate)
            scores |= {f"tuned {n}": value for n, value in zip(self.budgets, tuned, strict=True)}
        scores = {name: round(value, 4) for name, value in scores.items()} | sizes
        truth = None if self.rows is None else self.rows.row(text)[self.column]
        return Judged(str(arch), text, scores, truth)

    def measures(self, sample: list[Judged]) -> dict[str, dict[str, Any]]:
        if self.rows is None:
            return {}
        truth = [float(judged.truth or 0.0) for judged in sample]
        return {name: ranked([judged.scores[name] for judged in sample], truth) for name in sample[0].scores}

    def ceiling(self, sample: list[Judged]) -> float | None:
        """Return tau between one training's validation accuracy and the mean test accuracy of several, of the same
        cells."""
        one = self.column.replace("_test_", "_valid_")
        if self.rows is None or one == self.column or one not in self.rows.columns:
            return None
        rows = [self.rows.row(judged.notation) for judged in sample]
        return _known(kendall([row[one] for row in rows], [row[self.column] for row in rows]))

    # ------------------------------------------------------------------ how firmly it had decided

    def decisions(self, mix: Mix) -> list[dict[str, Any]]:
        """Return what the final mix says of each decision."""
        legal, weight = self.space.legal, mix.weight.detach().cpu().double()
        if weight.dim() != 2:
            return []
        found = []
        for row, decision in enumerate(self.space.decisions):
            p = weight[row][legal[row]]
            if (p < 0).any() or p.sum() <= 0 or len(p) < 2:
                continue
            p = p / p.sum()
            top = p.topk(2).values
            entropy = float(-torch.special.xlogy(p, p).sum()) / math.log(len(p))
            option = self.arch.get(decision.name)
            kept = 0.0 if option is None else float(weight[row][decision.options.index(option)] / weight[row].sum())
            found.append(
                {
                    "name": decision.name,
                    "entropy": round(entropy, 4),
                    "margin": round(float(top[0] - top[1]), 4),
                    "kept": None if option is None else round(kept, 4),
                }
            )
        return found

    def seeds(self, sample: list[Judged]) -> dict[str, float] | None:
        """Return what runs beside say: how alike their supernets rank the sample, and their answers."""
        if not self.others:
            return None
        rankings, answers = [[judged.scores["recalibrated"] for judged in sample]], [self.arch]
        archs = [Arch.parse(judged.arch) for judged in sample]
        for other in self.others:
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

    def late(self) -> dict[str, int]:
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
