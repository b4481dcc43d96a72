"""Black-box search: ask, score, tell."""

from __future__ import annotations

from gapless.core.decision import Arch
from gapless.core.searcher import Score, Searcher


def explore(searcher: Searcher, score: Score | None, budget: int) -> Arch:
    """Spend ``budget`` evaluations of ``score`` and return the searcher's answer; without a score its first
    proposal."""
    if score is None:
        return searcher.ask(1)[0]
    for _ in range(budget):
        (arch,) = searcher.ask(1)
        searcher.tell([(arch, {"score": score(arch)})])
    return searcher.best()
