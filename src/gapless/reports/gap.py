"""The page of a gap: plain words about what is sound and what is not, with the figures behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gapless.core.errors import UserError
from gapless.core.text import code, printable, sentence, shown
from gapless.reports.panel import (
    BOTTOM,
    COLUMN,
    GREY,
    INK,
    PAGE,
    RULE,
    SMALL,
    Look,
    foot,
    limits,
    panel,
    sheet,
    side_room,
    side_title,
    text_width,
    write,
)
from gapless.runs import manifest, schema
from gapless.runs.run import Run

NAME = "gap.json"
LOST, KEPT, BEATEN = 5.0, 0.5, 0.9
"""Bounds of what is called sound, all ours: points that discretisation may cost, weight of the mix on the answer, share
of random architectures that the answer beats."""
CAUSES = {
    "discretised": "reading one architecture off the mix",
    "recalibrated": "statistics of batch normalisation gathered anew",
    "tuned": "a little training of the answer's weights on their own",
    "retrained": "training from scratch, at the supernet's depth and width",
    "alone": "training from scratch, at full size",
}
"""What lies between a step of the chain and the one before it."""
WORDS = {True: "sound", False: "not sound", None: "fact"}
"""What a finding is called."""
SCRATCH = ("retrained", "alone")
"""Steps of the chain that inherit no weight."""
BLUE, ORANGE = Look("#0072b2"), Look("#b87a00")


class Finding(NamedTuple):
    """A sentence or two, and whether they speak for the search; None where nothing can be said."""

    sound: bool | None
    text: str


def read(run: Run) -> dict[str, Any]:
    """Return the content of a run's ``gap.json``.

    Raises
    ------
    UserError
        Where its gap was not measured, or the file is spoilt.
    """
    path = run.path / NAME
    if not path.exists():
        raise UserError(f"The gap of {run.path} was not measured yet. Measure it with: gapless gap {run.path}")
    repair = f"Measure it anew with: gapless gap {run.path}"
    manifest.check(run.path, NAME, repair)
    found: dict[str, Any] = schema.read(path, schema.GapFile, repair)
    nowhere = dict.fromkeys(("gap-chain", "gap-ranking", "gap-fixing"), "")
    schema.check_told(
        found, shown(path), repair, lambda gap: page(gap, nowhere), _points, lambda gap: summary_table({"": gap})
    )
    return found


# ---------------------------------------------------------------------- words


def findings(gap: Mapping[str, Any]) -> list[Finding]:
    """Return what the numbers say, in the order of the page."""
    found = [_discretisation(gap), _largest(gap), _firmness(gap), _ranking(gap), _parameters(gap), _sharing(gap)]
    found += [_depth(gap), _answer(gap), _seeds(gap), _late(gap)]
    return [finding for finding in found if finding is not None]


def _discretisation(gap: Mapping[str, Any]) -> Finding:
    before, after = (_accuracy(gap, name) for name in ("supernet", "recalibrated"))
    lost = before - after
    told = f"The supernet answers {before:.1f} % of the test images rightly, the answer with its weights {after:.1f} %"
    if lost <= LOST:
        return Finding(True, f"{told} (statistics gathered anew): what was trained is close to what was read off.")
    return Finding(
        False,
        f"{told}, even with statistics gathered anew: {lost:.1f} points are lost where one architecture is read off. "
        "What was trained is not what was chosen.",
    )


def _largest(gap: Mapping[str, Any]) -> Finding | None:
    steps = [
        (after["accuracy"] - before["accuracy"], after["name"])
        for before, after in zip(gap["chain"], gap["chain"][1:], strict=False)
        if after["name"] not in SCRATCH
    ]
    change, name = max(steps, key=lambda step: abs(step[0]))
    return Finding(None, f"The largest step on the way is {CAUSES[name]}: {change:+.1f} points.")


def _firmness(gap: Mapping[str, Any]) -> Finding | None:
    kept = [d["kept"] for d in gap["decisions"] if d["kept"] is not None]
    if not kept:
        return None
    mean, entropy = sum(kept) / len(kept), sum(d["entropy"] for d in gap["decisions"]) / len(gap["decisions"])
    told = (
        f"At its end the method gave the options of the answer a probability of {100 * mean:.0f} % on average; the "
        f"entropy was {100 * entropy:.0f} % of the largest"
    )
    return Finding(mean >= KEPT, f"{told}. " + ("It had decided." if mean >= KEPT else "It had hardly decided."))


def _ranking(gap: Mapping[str, Any]) -> Finding:
    if not gap["measures"]:
        return Finding(
            None,
            "How well the supernet ranks architectures is unknown: there was no table of what they are worth alone, "
            "and none was trained from scratch at full size.",
        )
    told = gap["measures"]["recalibrated"]
    if told["tau"] is None:
        return Finding(False, f"The supernet cannot tell {told['n']} architectures apart.")
    low, high = told["interval"]
    ceiling = "" if gap["ceiling"] is None else f"; noise of trainings allows {gap['ceiling']:.2f}"
    text = (
        f"Accuracies inherited from the supernet rank {told['n']} architectures with a Kendall tau of "
        f"{told['tau']:.2f} (95 % interval {low:.2f} to {high:.2f}{ceiling})."
    )
    if low > 0:
        return Finding(True, f"{text} They know something.")
    return Finding(False, f"{text} That cannot be told from chance.")


def _parameters(gap: Mapping[str, Any]) -> Finding | None:
    if not gap["measures"]:
        return None
    own, free = (gap["measures"][name]["tau"] for name in ("recalibrated", "params"))
    if free is None or own is None:
        return None
    if free >= own:
        return Finding(
            False,
            f"The number of parameters, which costs nothing, ranks them with {free:.2f}: not worse than the supernet.",
        )
    return Finding(True, f"The number of parameters ranks them with {free:.2f}: the supernet adds something.")


def _sharing(gap: Mapping[str, Any]) -> Finding | None:
    if gap["small"] is None or gap["small"]["sharing"]["tau"] is None:
        return None
    told = gap["small"]["sharing"]
    low, high = told["interval"]
    return Finding(
        low > 0,
        f"With trainings from scratch at the supernet's own depth and width the inherited accuracies agree with a tau "
        f"of {told['tau']:.2f} ({low:.2f} to {high:.2f}): what sharing weights costs where no size changes.",
    )


def _depth(gap: Mapping[str, Any]) -> Finding | None:
    told = (gap["small"] or {}).get("depth")
    if told is None or told["tau"] is None:
        return None
    low, high = told["interval"]
    return Finding(
        low > 0,
        f"Trained from scratch at the supernet's depth and width, {told['n']} architectures stand in an order that has "
        f"a tau of {told['tau']:.2f} ({low:.2f} to {high:.2f}) with that at full size: the depth gap. A search at that "
        "size that made no other error would rank so.",
    )


def _answer(gap: Mapping[str, Any]) -> Finding | None:
    if gap["truth"] is None:
        return None
    own, *others = [judged["truth"] for judged in gap["sample"]]
    share = sum(other < own for other in others) / len(others)
    return Finding(
        share >= BEATEN,
        f"The answer alone reaches {own:.2f} % ({gap['truth']}), and beats {100 * share:.0f} % of {len(others)} random "
        f"architectures, whose mean is {sum(others) / len(others):.2f} % and whose best is {max(others):.2f} %.",
    )


def _seeds(gap: Mapping[str, Any]) -> Finding | None:
    told = gap["seeds"]
    if told is None:
        return None
    return Finding(
        told["agreement"] >= BEATEN,
        f"The supernets of {told['runs']} runs rank the same architectures with a tau of {told['tau']:.2f} between each"
        f" other ({told['smallest']:.2f} to {told['largest']:.2f}); {100 * told['agreement']:.0f} % of the runs share "
        "the commonest option of a decision.",
    )


def _late(gap: Mapping[str, Any]) -> Finding | None:
    late = gap["late"]
    if late is None:
        return None
    if not late["changes"]:
        return Finding(True, f"The answer did not change in the last {late['epochs']} epochs.")
    return Finding(
        False,
        f"The answer changed {late['changes']} times in the last {late['epochs']} epochs ({late['distinct']} different "
        "ones): the end of the search was a matter of when it ended.",
    )


def _accuracy(gap: Mapping[str, Any], name: str) -> float:
    return {step["name"]: float(step["accuracy"]) for step in gap["chain"]}[name]


class Table(NamedTuple):
    """Rows of plain text below their heads. In the ones ``code`` names things, by their column."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    code: tuple[int, ...] = ()


def page(gap: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Return the page as Markdown; ``figures`` says where each figure is."""
    lines = [
        "# The gap of a search",
        "",
        f"Answer: {code(gap['notation'])}",
        "",
        sentence(measured(gap)),
        "",
        "| | |",
        "|---|---|",
        *(f"| {WORDS[finding.sound]} | {sentence(finding.text)} |" for finding in findings(gap)),
        "",
        "## From the supernet to the answer alone",
        "",
        f"![The chain of accuracies]({figures['gap-chain']})",
        "",
        *markdown(chain_table(gap)),
        "",
        sentence(by_statistics(gap)),
        "",
    ]
    if gap["measures"]:
        lines += [f"## Ranking of {ranked(gap)} architectures", ""]
        lines += [f"![Each score beside the truth]({figures['gap-ranking']})", ""]
        lines += [sentence(how_ranked(gap)), "", *markdown(ranking_table(gap)), ""]
    if gap["fixing"]:
        lines += ["## Fixing one decision after another", ""]
        lines += [f"![Accuracy as decisions are fixed]({figures['gap-fixing']})", "", *markdown(fixing_table(gap)), ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown(table: Table) -> list[str]:
    """Return a table as lines of Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rows = [[code(cell) if i in table.code else sentence(cell) for i, cell in enumerate(row)] for row in table.rows]
    return [line(table.head), "|" + "---|" * len(table.head), *map(line, rows)]


def measured(gap: Mapping[str, Any]) -> str:
    """Return by which images accuracies were measured."""
    which = f": {printable(gap['tested'])}" if "tested" in gap else ""
    return (
        f"Accuracies are of {gap['images']:,} test images, which the search never saw{which}. The standard error of "
        f"one is at most {gap['error']:.1f} points."
    )


def by_statistics(gap: Mapping[str, Any]) -> str:
    """Return what the answer reaches in the supernet by each kind of statistics."""
    told = ", ".join(f"{bn} {value:.2f} %" for bn, value in gap["statistics"].items())
    return f"The answer with inherited weights, by the statistics of batch normalisation: {told}."


def chain_table(gap: Mapping[str, Any]) -> Table:
    """Return the steps of the chain."""
    rows, before = [], None
    for step in gap["chain"]:
        change = "" if before is None else f"{step['accuracy'] - before:+.2f}"
        seconds = "" if step["seconds"] is None else f"{step['seconds']:.1f}"
        rows.append((step["name"], f"{step['accuracy']:.2f}", change, step["what"], seconds))
        before = step["accuracy"]
    return Table(("step", "accuracy (%)", "change (points)", "what", "seconds"), rows)


def ranked(gap: Mapping[str, Any]) -> int:
    """Return how many architectures were ranked."""
    return int(next(iter(gap["measures"].values()))["n"])


def how_ranked(gap: Mapping[str, Any]) -> str:
    """Return what the columns of the ranking mean."""
    (k,) = next(iter(gap["measures"].values()))["recall"]
    return (
        f"Truth: {gap['truth']}. Ties count against a score; `sparse` calls equal what rounds to the same tenth of a "
        f"point; the interval is a bootstrap over architectures; recall is of the {k} best; regret is in points."
    )


def ranking_table(gap: Mapping[str, Any]) -> Table:
    """Return how well each score ranks."""
    (k,) = next(iter(gap["measures"].values()))["recall"]
    rows: list[tuple[str, ...]] = []
    for name, told in gap["measures"].items():
        low, high = (_two(value) for value in told["interval"])
        ranks = ", ".join(str(rank) for rank in told["best_rank"].values())
        regrets = ", ".join(_two(value) for value in told["regret"].values())
        taus = (_two(told["tau"]), f"{low} to {high}", _two(told["sparse_tau"]), _two(told["rho"]))
        rows.append((name, *taus, f"{told['recall'][k]:.2f}", ranks, regrets, str(told["ties"])))
    if gap["ceiling"] is not None:
        rows.append(("ceiling: noise of trainings", f"{gap['ceiling']:.2f}", *[""] * 7))
    heads = ("tau", "95 % interval", "sparse", "rho", f"recall@{k}", "best rank of 1, of 3", "regret@1, 3, 5", "ties")
    return Table(("score", *heads), rows)


def fixing_table(gap: Mapping[str, Any]) -> Table:
    """Return the accuracy as decision after decision is fixed, with what the final mix said of each."""
    by_name, rows = {d["name"]: d for d in gap["decisions"]}, []
    for name, accuracy in gap["fixing"]:
        told = by_name.get(name)
        rest = ("", "", "")
        if told is not None:
            kept = "not kept" if told["kept"] is None else f"{told['kept']:.2f}"
            rest = (f"{told['entropy']:.2f}", f"{told['margin']:.2f}", kept)
        rows.append((name, f"{accuracy:.2f}", *rest))
    heads = ("accuracy once fixed (%)", "entropy (share of the largest)", "margin", "of the answer's option")
    return Table(("decision", *heads), rows, code=(0,))


def summary_table(gaps: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return how the supernet of each run ranks, and the ends of its chain; ``gaps`` are by name of the run."""
    steps = ("supernet", "recalibrated", "alone")
    rows = []
    for name, gap in gaps.items():
        told = gap["measures"].get("recalibrated", {"tau": None, "interval": (None, None)})
        low, high = map(_two, told["interval"])
        chain = {step["name"]: step["accuracy"] for step in gap["chain"]}
        span = "-" if told["tau"] is None else f"{low} to {high}"
        rows.append((name, _two(told["tau"]), span, *(_two(chain.get(step)) for step in steps)))
    heads = ("tau", "95 % interval", "supernet (%)", "answer with its weights (%)", "answer alone (%)")
    return Table(("run", *heads), rows, code=(0,))


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# ---------------------------------------------------------------------- figures


def figures(gap: Mapping[str, Any]) -> dict[str, Figure]:
    """Return name -> figure: ``gap-chain``, and ``gap-ranking`` and ``gap-fixing`` where there is something to show."""
    found = {"gap-chain": chain(gap["chain"])}
    if gap["measures"]:
        found["gap-ranking"] = scatter(gap)
    if gap["fixing"]:
        found["gap-fixing"] = fixing(gap)
    return found


def chain(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracies as bars from left to right, with the change beside each, in the width of a column."""
    room = max(text_width(step["name"]) for step in steps) + 0.1
    pitch, top = 0.24, 0.05
    height = top + pitch * len(steps) + BOTTOM
    figure = sheet(COLUMN, height)
    axes = panel(figure, room, top, COLUMN - room - 0.75, pitch * len(steps))
    axes.set_xlim(0, 100)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    before = None
    for place, step in enumerate(steps):
        value = step["accuracy"]
        look = ORANGE if step["name"] in SCRATCH else BLUE
        axes.add_patch(Rectangle((0, place - 0.33), value, 0.66, facecolor=look.colour, linewidth=0, alpha=0.8))
        if before is not None:
            axes.add_line(Line2D([before, before], [place - 0.67, place - 0.33], color=INK, linewidth=0.6))
        text = f"{value:.1f}" + ("" if before is None else f" ({value - before:+.1f})")
        level = top + pitch * (place + 0.5) + 0.035
        write(figure, room - 0.05, level, step["name"], size=SMALL, ha="right")
        write(figure, COLUMN - 0.72, level, text, size=SMALL)
        before = value
    foot(figure, room, COLUMN - 0.75, "accuracy (%)")
    return figure


def _points(gap: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return what is ranked -> its values over the sample, parameters in millions; ``truth`` first."""
    names = [name for name in gap["measures"] if name != "macs"]
    units = {name: 1e6 if name == "params" else 1.0 for name in names}
    found = {"truth": [float(judged["truth"]) for judged in gap["sample"]]} if names else {}
    return found | {name: [judged["scores"][name] / units[name] for judged in gap["sample"]] for name in names}


def scatter(gap: Mapping[str, Any]) -> Figure:
    """Draw each score beside the truth, a dot an architecture, the answer in orange, in the width of a page."""
    truth, *_ = (points := _points(gap)).values()
    names = list(points)[1:]
    columns, high, gutter, title = min(5, len(names)), 1.1, 0.2, 0.18
    rows = -(-len(names) // columns)
    left = side_room(high, [truth])
    wide = (PAGE - left - 0.08 - (columns - 1) * gutter) / columns
    figure = sheet(PAGE, rows * (title + high + BOTTOM))
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        corner, top = left + column * (wide + gutter), row * (title + high + BOTTOM) + title
        axes = panel(figure, corner, top, wide, high)
        scores = points[name]
        limits(axes, truth)
        axes.set_xlim(*_room(scores))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(axis="y", labelleft=column == 0)
        axes.plot(scores[1:], truth[1:], "o", color=BLUE.colour, markersize=2.6, linewidth=0, clip_on=False)
        axes.plot(scores[:1], truth[:1], "D", color=ORANGE.colour, markersize=4, linewidth=0, clip_on=False)
        tau = gap["measures"][name]["tau"]
        write(figure, corner, top - 0.05, name, weight="bold", size=SMALL)
        write(figure, corner + wide, top - 0.05, f"tau {_two(tau)}", size=SMALL, color=GREY, ha="right")
        unit = "parameters (M)" if name == "params" else "accuracy (%)"
        write(figure, corner + wide / 2, top + high + BOTTOM - 0.07, unit, size=SMALL, ha="center")
    for row in range(rows):
        side_title(figure, row * (title + high + BOTTOM) + title + high / 2, "alone (%)")
    return figure


def fixing(gap: Mapping[str, Any]) -> Figure:
    """Draw the accuracy as decision after decision is fixed, in the width of a column."""
    values = [_accuracy(gap, "supernet"), *(value for _, value in gap["fixing"])]
    high, top = 1.2, 0.08
    left = side_room(high, [values])
    figure = sheet(COLUMN, top + high + BOTTOM)
    axes = panel(figure, left, top, COLUMN - left - 0.12, high)
    axes.set_xlim(0, len(values) - 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    limits(axes, values)
    axes.axhline(values[0], color=RULE, linewidth=0.6)
    axes.plot(range(len(values)), values, "o-", color=BLUE.colour, markersize=2.6, linewidth=0.9, clip_on=False)
    side_title(figure, top + high / 2, "accuracy (%)")
    foot(figure, left, COLUMN - 0.12, "decisions fixed")
    return figure


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - air, high + air
