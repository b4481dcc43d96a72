"""``gapless diagnose``: do the options compete or complement each other, which matures early, does the loss bend?

Co-adaptation and the Matthew effect are the explanations that DropNAS (arXiv 2201.11679) gives for the failure of
one-level search, the curvature of the loss in the architecture is the sign of collapse of RobustDARTS (arXiv
1909.09656). Feature maps are looked at in the finished supernet (:mod:`gapless.measure.features`), with the k-means and
the principal components of StacNAS; all else is read from the trace, which holds it where the search was watched
(:mod:`gapless.engine.diagnostics`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gapless.analysis.alarm import bends
from gapless.analysis.ranking import spearman
from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.progress import stream
from gapless.core.settings import Sample, Threads, ranged
from gapless.core.space import Space
from gapless.engine.diagnostics import groups_of
from gapless.engine.precision import Precision, arithmetic
from gapless.measure.features import Features, alike, features
from gapless.reports import diagnose as report
from gapless.reports.curves import starts
from gapless.reports.show import write
from gapless.runs.checked import RunSettings
from gapless.runs.checkpoint import PATIENCE, held
from gapless.runs.run import Run
from gapless.runs.searched import TrainedSupernet, trained
from gapless.studies.defaults import FEATURE_IMAGES
from gapless.studies.device import device_of, use_threads

CLUSTERS, STARTS = (2, 3, 4), 10
"""Images: DropNAS's figure (arXiv 2201.11679). Clusters: StacNAS, released code. Starts of each k-means: ours."""
PART = 4
"""The first and the last of so many equal parts of the epochs are called early and late. Ours."""


@dataclass(frozen=True)
class Place:
    """What one edge or free site of the network shows.

    Attributes
    ----------
    place, decision, options, groups
        See :class:`gapless.measure.features.Features`.
    correlation
        Rows of the matrix; None where a map does not vary.
    alike
        Mean absolute correlation within ``weights``, within ``free``, ``across``; None where there is no such pair.
    clusters
        Number of clusters -> the cluster of each option's mean map, counted in the order of the options.
    plane
        For each option its mean map in the first two principal components of these maps.
    """

    place: str
    decision: str
    options: tuple[str, ...]
    groups: Mapping[str, str]
    correlation: tuple[tuple[float | None, ...], ...]
    alike: Mapping[str, float | None]
    clusters: Mapping[str, tuple[int, ...]]
    plane: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Course:
    """What the trace tells; a list has an entry for each epoch, None where it was not measured.

    Attributes
    ----------
    scores
        Option -> mean score over the decisions that have it; empty where no score ever told options apart.
    gradient_share
        Option with weights -> its share of the squared norm of the gradient; empty where the search was not watched.
    option_accuracy
        Option -> accuracy in percent where every decision that has it takes it alone; empty likewise.
    hessian
        Largest eigenvalue of the Hessian of the architecture's loss.
    sharp
        The last epoch, from 1, behind which RobustDARTS would have stopped; None where there is none.
    matthew
        ``rho``: Spearman's correlation, within a decision, between the early scores of options with weights and the
        late shares of the gradient that they receive, averaged over ``decisions`` of them; ``chance``: its standard
        deviation where neither tells anything of the other; None where there is none.
    """

    scores: Mapping[str, tuple[float | None, ...]]
    gradient_share: Mapping[str, tuple[float | None, ...]]
    option_accuracy: Mapping[str, tuple[float | None, ...]]
    hessian: tuple[float | None, ...]
    sharp: int | None
    matthew: Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class Diagnosed:
    """One run.

    Attributes
    ----------
    run, method
        Its folder; what searched.
    epochs, part, starts
        Of the search; how many of them are early, and how many late; how many lie before each stage but the first.
    watched
        Whether the trace holds what a search with ``watch`` records.
    groups
        Option -> ``weights`` or ``free``.
    places
        First and last decision of each kind of cell, in every cell; empty where none has two options to compare.
    alike
        Decision -> the means over its places.
    course
        What the trace tells.
    """

    run: str
    method: str
    epochs: int
    part: int
    starts: tuple[int, ...]
    watched: bool
    groups: Mapping[str, str]
    places: tuple[Place, ...]
    alike: Mapping[str, Mapping[str, float | None]]
    course: Course


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was measured; ``diagnose.json`` of the run holds the same.

    Attributes
    ----------
    images
        Training images over which feature maps were looked at, the same for all runs.
    runs
        The run, and the one beside it.
    seconds
        Of all measurements.
    """

    images: int
    runs: tuple[Diagnosed, ...]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@ranged
def diagnose(
    run: str | Path,
    *,
    beside: str | Path | None = None,
    images: Sample = FEATURE_IMAGES,
    device: str = "auto",
    threads: Threads = 0,
) -> Diagnosis:
    """Look at the options of a finished search, and write ``diagnose.json`` into its folder; nothing else there
    changes.

    Parameters
    ----------
    run
        Folder of a search that trained a supernet.
    beside
        Another such search of the same space and images, to stand beside it.
    images
        Training images for the feature maps; all, where there are fewer.
    device, threads
        Where to measure: ``auto``, ``cpu``, ``cuda``; CPU threads, of which 0 leaves PyTorch's own.

    Raises
    ------
    UserError
        Where a run has no supernet or has not ended, the two do not fit, or the number is out of range.
    """
    begun = time.perf_counter()
    sources = [trained(path)[0] for path in ([run] if beside is None else [run, beside])]
    own, *others = sources
    for other in others:
        if other.path.resolve() == own.path.resolve():
            raise UserError(f"`beside` must be another run; got {run} itself.")
        if other.found()[1].decisions != own.found()[1].decisions:
            raise UserError(f"`beside` must be a run of the same space; {other.path} searched another than {run}.")
        if other.recipe().data != own.recipe().data:
            raise UserError(
                f"`beside` must be a run of the same images; {other.path} had other settings of data than {run}."
            )
    use_threads(threads)
    place, found, seen = device_of(device), [], 0
    for source in sources:
        told, seen = _diagnosed(source, images, place)
        found.append(told)
    diagnosis = Diagnosis(seen, tuple(found), round(time.perf_counter() - begun, 1))
    with held(own, patience=PATIENCE):
        own.write_listed(report.NAME, diagnosis.plain())
    return diagnosis


def _diagnosed(source: Run, images: int, device: torch.device) -> tuple[Diagnosed, int]:
    """Return what a run shows, and over how many images."""
    recipe = source.recipe()
    asked: Precision = RunSettings.of(recipe).precision
    precision: Precision = "float32" if asked == "bfloat16" else asked
    opened = TrainedSupernet.of(source, device, precision)
    bench, method = opened.bench, opened.method
    with torch.no_grad():
        mix = Mix(method.probabilities().detach().to(device, bench.feed.dtype), method.active)
    chosen = ends(bench.space)
    index = torch.randperm(len(bench.feed.data.train), generator=stream("features"))[:images].sort().values
    with arithmetic(device, precision):
        maps = features(
            bench.supernet, mix, bench.feed.plain(index, bench.feed.size), lambda d: d in chosen, bn=bench.plan.bn
        )
    places = tuple(_place(f) for f in maps)
    records = list(source.trace())
    part = max(1, len(records) // PART)
    told = Diagnosed(
        run=str(source.path),
        method=recipe.method["name"],
        epochs=len(records),
        part=part,
        starts=tuple(starts(records)),
        watched=any("option_accuracy" in record for record in records),
        groups=groups_of(bench.supernet),
        places=places,
        alike=_means(places),
        course=course(records, bench.space, part),
    )
    return told, len(index)


def ends(space: Space) -> set[str]:
    """Return the first and the last decision of each kind of cell: its first edge, and the last one into its last
    node."""
    kinds: dict[str, list[str]] = {}
    for decision in space.decisions:
        kinds.setdefault(decision.name.rpartition(":")[0], []).append(decision.name)
    return {name for names in kinds.values() for name in (names[0], names[-1])}


# ---------------------------------------------------------------------- feature maps


def _place(found: Features) -> Place:
    distinct = len({tuple(row) for row in found.means.tolist()})
    return Place(
        found.place,
        found.decision,
        found.options,
        found.groups,
        tuple(tuple(_known(v) for v in row) for row in found.correlation.tolist()),
        {name: None if v is None else round(v, 6) for name, v in alike(found).items()},
        {str(k): clusters(found.means, k) for k in CLUSTERS if k <= distinct},
        plane(found.means),
    )


def clusters(maps: Tensor, count: int) -> tuple[int, ...]:
    """Return the cluster of each of the maps [K, M] by k-means, counted in the order of the maps.

    >>> clusters(torch.tensor([[5.0], [0.0], [5.1]]), 2)
    (0, 1, 0)
    """
    from sklearn.cluster import KMeans  # here, because importing scikit-learn takes a second

    labels = KMeans(count, n_init=STARTS, random_state=0).fit(maps.numpy()).labels_.tolist()
    names = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return tuple(names[label] for label in labels)


def plane(maps: Tensor) -> tuple[tuple[float, float], ...]:
    """Return the first two principal components of the maps [K, M], K at least 2, each pointing to where its largest
    entry is positive."""
    centred = maps - maps.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = torch.cat([axes, torch.zeros_like(axes)])[:2]  # of maps of one number there is only one
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return tuple((round(float(x), 6), round(float(y), 6)) for x, y in centred @ (axes * signs).T)


def _means(places: tuple[Place, ...]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for decision in dict.fromkeys(place.decision for place in places):
        told = [place.alike for place in places if place.decision == decision]
        found[decision] = {}
        for name in told[0]:
            values = [v for one in told if (v := one[name]) is not None]
            found[decision][name] = round(sum(values) / len(values), 6) if values else None
    return found


# ---------------------------------------------------------------------- the trace


def course(records: Sequence[Mapping[str, Any]], space: Space, part: int) -> Course:
    """Return what a trace tells of the options of a space; ``part`` epochs are early, and as many late."""
    scores = [_matrix(record["scores"]) for record in records]
    apart = any(
        float(row[mask & row.isfinite()].max() - row[mask & row.isfinite()].min()) > 0
        for told in scores
        for row, mask in zip(told, space.legal, strict=True)
        if (mask & row.isfinite()).any()
    )
    bent = [record.get("hessian") for record in records]
    sharp = bends(bent)
    return Course(
        scores=_by_option(scores, space) if apart else {},
        gradient_share=_listed(records, "gradient_share"),
        option_accuracy=_listed(records, "option_accuracy"),
        hessian=tuple(_known(v) for v in bent),
        sharp=None if sharp is None else sharp + 1,
        matthew=matthew(
            scores[:part],
            [_matrix(told) for r in records[-part:] if (told := r.get("decision_gradient_share")) is not None],
        ),
    )


def matthew(early: Sequence[Tensor], late: Sequence[Tensor]) -> dict[str, float] | None:
    """Return the Matthew index: ``rho``, the mean over ``decisions`` of Spearman's correlation within one between early
    scores and late shares of the gradient, and ``chance``, its standard deviation under independence (the variance of
    one correlation of n ranks is 1 / (n - 1)); None where no decision has two options to be told apart.

    Parameters
    ----------
    early
        Scores [D, O] of each early epoch.
    late
        Shares [D, O] of each late epoch, NaN where an option has none.
    """
    if not late:
        return None
    shares, scores = torch.stack(list(late)).mean(dim=0), torch.stack(list(early)).mean(dim=0)
    found, variances = [], []
    for share, score in zip(shares, scores, strict=True):
        there = share.isfinite() & score.isfinite()
        if int(there.sum()) > 1:
            value = spearman(score[there].tolist(), share[there].tolist())
            if not math.isnan(value):
                found.append(value)
                variances.append(1 / (int(there.sum()) - 1))
    if not found:
        return None
    chance = math.sqrt(sum(variances)) / len(found)
    return {"rho": round(sum(found) / len(found), 6), "chance": round(chance, 6), "decisions": len(found)}


def _by_option(scores: Sequence[Tensor], space: Space) -> dict[str, tuple[float | None, ...]]:
    found: dict[str, tuple[float | None, ...]] = {}
    for option in dict.fromkeys(o for d in space.decisions for o in d.options):
        places = [(row, d.options.index(option)) for row, d in enumerate(space.decisions) if option in d.options]
        values = [torch.stack([told[place] for place in places]) for told in scores]
        found[option] = tuple(_known(float(v[v.isfinite()].mean())) for v in values)
    return found


def _listed(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, tuple[float | None, ...]]:
    told = [record.get(name) or {} for record in records]
    return {o: tuple(_known(one.get(o)) for one in told) for o in dict.fromkeys(o for one in told for o in one)}


def _matrix(rows: Sequence[Sequence[float | None]]) -> Tensor:
    return torch.tensor([[math.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


# ---------------------------------------------------------------------- the page


@dataclass(frozen=True, eq=False)
class Page:
    """The page of a diagnosis, written: its file, and what it says."""

    path: Path
    findings: tuple[str, ...]


def drawn(run: str | Path) -> Page:
    """Write ``diagnose.md`` and its figures, from ``diagnose.json``, into the folder of a run.

    Raises
    ------
    UserError
        Where nothing was diagnosed yet.
    """
    source = Run.open(run)
    told = report.read(source)
    files = write(report.figures(told), source.path, "svg")
    source.write("diagnose.md", report.page(told, {name: path.name for name, path in files.items()}))
    return Page(source.path / "diagnose.md", tuple(report.findings(told)))
