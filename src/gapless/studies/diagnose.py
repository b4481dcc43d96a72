"""``gapless diagnose``: do the options of an edge compete or complement each other?

See :mod:`gapless.engine.features`. As in the released code of StacNAS the mean maps are clustered (k-means with 2, 3
and 4 clusters) and laid in a plane (principal components of the maps themselves).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.progress import stream
from gapless.core.space import Space
from gapless.engine.features import Features, alike, features
from gapless.engine.precision import Precision, arithmetic
from gapless.report import features as report
from gapless.report.show import write
from gapless.runs.searched import Reopened, trained
from gapless.studies.session import device_of, use_threads

IMAGES, CLUSTERS = 1000, (2, 3, 4)
"""Images: DropNAS's figure (arXiv 2201.11679). Clusters: StacNAS, released code."""


@dataclass(frozen=True)
class Edge:
    """What one edge of the network shows.

    Attributes
    ----------
    place, decision, options
        See :class:`gapless.engine.features.Features`.
    groups
        Option -> ``weights`` or ``free``.
    correlation
        Rows of the matrix; None where a map does not vary.
    alike
        Mean absolute correlation within ``weights``, within ``free``, ``across``.
    clusters
        Number of clusters -> the cluster of each option.
    plane
        For each option its mean map in the first two principal components.
    """

    place: str
    decision: str
    options: tuple[str, ...]
    groups: Mapping[str, str]
    correlation: tuple[tuple[float | None, ...], ...]
    alike: Mapping[str, float | None]
    clusters: Mapping[str, tuple[int, ...]]
    plane: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was measured; ``features.json`` of the run holds the same.

    Attributes
    ----------
    run
        The folder.
    images
        Over how many.
    edges
        First and last edge of each kind of cell, in every cell.
    alike
        Decision -> the means over its cells.
    """

    run: str
    images: int
    edges: tuple[Edge, ...]
    alike: Mapping[str, Mapping[str, float | None]]

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def diagnose(
    run: str | Path, *, images: int = IMAGES, everywhere: bool = False, device: str = "auto", threads: int = 0
) -> Diagnosis:
    """Look at the feature maps of the options of a finished search, and write ``features.json`` and figures into its
    folder.

    Parameters
    ----------
    run
        Folder of a search of cells that trained a supernet.
    images
        Training images of the weights to run; all, where there are fewer.
    everywhere
        Whether to look at every edge, not only at the first and the last of each kind of cell.
    device, threads
        Where to measure; 0 threads leaves PyTorch's own.

    Raises
    ------
    UserError
        Where the run has no supernet, or none with edges.
    """
    if images < 2:
        raise UserError(f"--images is {images}; it must be at least 2.")
    source, recipe = trained(run)
    use_threads(threads)
    asked: Precision = recipe.settings_of_run()["precision"]
    precision: Precision = "float32" if asked == "bfloat16" else asked
    place = device_of(device)
    opened = Reopened.of(source, place, precision)
    bench, method = opened.bench, opened.method
    with torch.no_grad():
        weight = method.probabilities().detach()
    mix = Mix(weight.to(place, bench.feed.dtype), active=method.active)
    chosen = ends(bench.space)
    index = bench.feed.training(bench.stage)
    index = index[torch.randperm(len(index), generator=stream("features"))][:images].sort().values
    with arithmetic(place, precision):
        found = features(bench.supernet, mix, bench.feed.plain(index), lambda d: everywhere or d in chosen)
    if not found:
        raise UserError(f"{run} searched {bench.space.label}, which has no edges whose options could be compared.")
    groups = {d.name: d.groups for d in bench.space.decisions}
    edges = tuple(_edge(f, groups[f.decision]) for f in found)
    told = Diagnosis(str(source.path), len(index), edges, _means(edges))
    source.write_json(report.NAME, told.plain())
    write(report.figures(told.plain()), source.path, "svg")
    return told


def ends(space: Space) -> set[str]:
    """Return the first and the last decision of each kind of cell: its first edge and the last one into its last
    node."""
    kinds: dict[str, list[str]] = {}
    for decision in space.decisions:
        kinds.setdefault(decision.name.rpartition(":")[0], []).append(decision.name)
    return {name for names in kinds.values() for name in (names[0], names[-1])}


def _edge(found: Features, groups: Mapping[str, str]) -> Edge:
    rows = [[None if v != v else round(v, 6) for v in row] for row in found.correlation.tolist()]
    known = {option: groups.get(option, "weights") for option in found.options}
    return Edge(
        found.place,
        found.decision,
        found.options,
        known,
        tuple(map(tuple, rows)),
        {name: None if v is None else round(v, 6) for name, v in alike(found, known).items()},
        {str(k): _clusters(found.means, k) for k in CLUSTERS if k <= len(found.options)},
        _plane(found.means),
    )


def _clusters(maps: Tensor, count: int) -> tuple[int, ...]:
    labels = KMeans(count, n_init=10, random_state=0).fit(maps.numpy()).labels_.tolist()
    names = {label: number for number, label in enumerate(dict.fromkeys(labels))}  # in the order of the options
    return tuple(names[label] for label in labels)


def _plane(maps: Tensor) -> tuple[tuple[float, float], ...]:
    centred = maps - maps.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()  # an axis has no direction of its own
    flat = centred @ (axes * signs)[:2].T
    return tuple((round(float(x), 6), round(float(y), 6)) for x, y in flat)


def _means(edges: tuple[Edge, ...]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for decision in dict.fromkeys(edge.decision for edge in edges):
        told = [edge.alike for edge in edges if edge.decision == decision]
        found[decision] = {}
        for name in told[0]:
            values = [v for one in told if (v := one[name]) is not None]
            found[decision][name] = round(sum(values) / len(values), 6) if values else None
    return found
