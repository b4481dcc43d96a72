"""Signs, in the records of a search under way, that it goes wrong. Each is a sentence; none stops anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import Any, NamedTuple

from gapless.core.decision import Arch, Decision
from gapless.core.space import Space

RARE, LASTING, STILL, MOVED = 0.05, 3, 5, 1e-3
"""How seldom a random architecture has so few weights, and for how many epochs that lasts; epochs without a move, and
the change of a score that is one. Ours."""
WINDOW, BACK, EARLIEST, BENT = 5, 4, 10, 0.75
"""Values of a curvature that are averaged; how many values lie between the two means; the first epoch, from 0, whose
mean is compared; the ratio of the earlier mean to the later one below which the loss bends too sharply (arXiv
1909.09656, which stops there; window, distance and first epoch are defaults of its released code, whose ratio is
1 / 1.3)."""


class Alarm(NamedTuple):
    """What goes wrong: ``name`` stands once for each thing, ``text`` says it."""

    name: str
    text: str


def alarms(space: Space, records: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """Return what the last of a search's records gives reason to say.

    *Few weights*: for three epochs, so many operations of the choice have no weights (skip connections, pools, "none")
    as fewer than one random architecture in twenty has, in one kind of cell: the collapse of DARTS (arXiv 1909.09656).
    *No weights*: none has. Both are said of methods whose scores tell options apart. *Still*: no score has moved by a
    thousandth in the last five epochs, in which the architecture was trained. *Sharp*, of a watched search: the largest
    eigenvalue of the Hessian of the architecture's loss has grown by a third in four epochs, each the mean of five,
    where the DARTS of arXiv 1909.09656 stops.
    """
    found = [_weights(space, record) for record in records[-LASTING:]]
    lasting = [] if len(found) < LASTING else found[-1]
    for earlier in found[:-1]:
        named = {alarm.name for alarm in earlier}
        lasting = [alarm for alarm in lasting if alarm.name in named]
    return [*lasting, *_still(records[-STILL - 1 :]), *_sharp(records)]


def _weights(space: Space, record: Mapping[str, Any]) -> list[Alarm]:
    arch = Arch.parse(record["arch"])
    if all(len(set(row) - {None, 0.0, -inf}) < 2 for row in record["scores"]):
        return []  # what the scores say is the first of equals
    present = [d for d in space.decisions if d.name in arch and set(d.groups.values()) == {"weights", "free"}]
    if not present:
        return []
    free = {d.name for d in present if d.groups[arch[d.name]] == "free"}
    if len(free) == len(present) == len(arch):
        return [
            Alarm(
                "no weights",
                "The present choice has had no operation with weights for three epochs: it hardly computes anything.",
            )
        ]
    found = []
    for kind in dict.fromkeys(d.name.rpartition(":")[0] for d in present):
        rows = [d for d in present if d.name.rpartition(":")[0] == kind]
        count = sum(d.name in free for d in rows)
        if _tail([_share(d) for d in rows], count) < RARE:
            where = f"In the {kind} cell " if kind else ""
            begins = "the" if kind else "The"
            found.append(
                Alarm(
                    f"few weights {kind}",
                    f"{where}{begins} present choice has {count} of {len(rows)} operations without weights, more than "
                    "19 of 20 random architectures: the collapse that weight sharing is known for.",
                )
            )
    return found


def _share(decision: Decision) -> float:
    """Return which share of what an architecture may hold is without weights."""
    groups = [decision.groups[decision.options[column]] for column in decision.eligible]
    return groups.count("free") / len(groups)


def _tail(shares: Sequence[float], count: int) -> float:
    """Return the chance of at least ``count`` successes among independent draws with these chances.

    >>> _tail([0.5, 0.5], 1)
    0.75
    """
    chances = [1.0]
    for p in shares:
        chances = [a * (1 - p) + b * p for a, b in zip([*chances, 0.0], [0.0, *chances], strict=True)]
    return sum(chances[count:])


def _still(records: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    if len(records) <= STILL or any(record.get("arch_loss") is None for record in records[1:]):
        return []
    moves = [
        abs(new - old)
        for before, after in pairwise(records)
        for one, other in zip(before["scores"], after["scores"], strict=True)
        for old, new in zip(one, other, strict=True)
        if old is not None and new is not None and isfinite(old) and isfinite(new)
    ]
    if max(moves, default=0.0) >= MOVED:
        return []
    return [
        Alarm(
            "still",
            f"No score has moved by {MOVED:g} in the last {STILL} epochs: the architecture has settled, or its rate is "
            "too small to settle it.",
        )
    ]


def _sharp(records: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    found = bends([record.get("hessian") for record in records])
    if found is None or found != len(records) - 1:
        return []
    return [
        Alarm(
            "sharp",
            "The largest eigenvalue of the Hessian of the architecture's loss has grown by more than a third in "
            f"{BACK} epochs: where DARTS went on from there, it collapsed (arXiv 1909.09656).",
        )
    ]


def bends(values: Sequence[float | None]) -> int | None:
    """Return the last epoch, from 0, at whose end the criterion of arXiv 1909.09656 says that the loss bends too
    sharply; None where there is none.

    Parameters
    ----------
    values
        The largest eigenvalue behind each epoch; None where it was not measured.

    >>> bends([1.0] * 20), bends([1.0] * 18 + [2.0] * 2)
    (None, 19)
    """
    for last in reversed(range(EARLIEST + WINDOW // 2 + BACK, len(values))):
        later, earlier = (values[end - WINDOW + 1 : end + 1] for end in (last, last - BACK))
        if None in later or None in earlier:
            continue
        before, now = (sum(v for v in part if v is not None) / WINDOW for part in (earlier, later))
        if 0 < before < BENT * now:
            return last
    return None
