"""The page of a run: what it found, how far that can be trusted, how it went, and what repeats it.

A section is a small function from what the folder holds to HTML; it returns None where there is nothing to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gapless.analysis.alarm import STILL, alarms
from gapless.core.bound import EXAMPLES, Bound, budget, told
from gapless.core.decision import Arch
from gapless.core.errors import Untrusted
from gapless.core.space import Space
from gapless.core.text import quoted
from gapless.measure.latency import LatencyTable
from gapless.reports import diagnose as diagnoses
from gapless.reports import gap as gaps
from gapless.reports.html import (
    NOTHING,
    Html,
    Section,
    document,
    drawing,
    facts,
    join,
    paragraph,
    prose,
    table,
    tag,
    text,
)
from gapless.reports.parts import (
    MACHINES,
    Page,
    commands,
    folded,
    lasted,
    machine_facts,
    trains_supernet,
)
from gapless.reports.show import draw_run, read
from gapless.runs.checked import RunSettings, check_recipe
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.runs.searched import continued_size

LATENCIES = "latency.json"
SCORES = (
    "Bold is the option of the answer. Lines that still cross at the end: the search had not made up its mind. A "
    "bundle that never opens: it hardly moved."
)
SAID = {
    "training": "Losses, accuracies in percent, and the learning rate at the end of each epoch.",
    "evaluations": "The score of each architecture that was asked for, in their order, and the best so far.",
    "judged": "The accuracy of each candidate with the supernet's weights, in their order, and the best so far.",
    "range": "Light grey reaches from the worst to the best of the architectures that the search draws, dark grey from "
    "the lower to the upper quartile; the black line is their median, the blue one the current choice, the dashed one "
    "the best of all.",
    "gap-chain": "Blue was measured on the same test images, orange is the answer trained from scratch.",
    "gap-ranking": "A dot is an architecture, the orange diamond is the answer.",
    "gap-fixing": "The accuracy of the supernet as decision after decision is fixed, the surest first.",
}
"""What stands below figures."""


@dataclass(frozen=True, eq=False)
class RunFacts:
    """What a run's folder holds, read once.

    Attributes
    ----------
    run, recipe, records
        The folder, its recipe, its trace.
    arch, space
        The answer, or the present choice.
    figures
        Name -> figure.
    gap
        Content of ``gap.json``; None where the gap was not measured.
    diagnosis
        Content of ``diagnose.json``; None where the options were not looked at.
    range
        The numbers of the last epoch in the figure ``range``; None without it.
    notes
        Of the figures.
    """

    run: Run
    recipe: Recipe
    records: Sequence[Mapping[str, Any]]
    arch: Arch
    space: Space
    figures: Mapping[str, Figure]
    gap: Mapping[str, Any] | None
    diagnosis: Mapping[str, Any] | None
    range: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the folder, wherever it lies."""
        return self.run.path.resolve().name

    @cached_property
    def ended(self) -> bool:
        """Whether the run has come to its end."""
        return self.run.ended

    @cached_property
    def alone(self) -> bool:
        """Whether one architecture was trained."""
        return self.run.kind == "retrain"

    @cached_property
    def scored(self) -> bool:
        """Whether this was a black-box search."""
        return bool(self.recipe.score)

    @cached_property
    def supernet(self) -> bool:
        """Whether a supernet was trained, so that there is a gap to measure."""
        return not self.alone and trains_supernet(self.recipe)

    def draw(self, name: str, label: str) -> Html:
        """Return a figure; nothing where there is no such figure."""
        if name not in self.figures:
            return NOTHING
        place = list(self.figures).index(name)
        return drawing(self.figures[name], f"f{place}", label, prose(SAID.get(name, "")))


def page(run: Run, *, table: str | Path | None = None, column: str | None = None) -> Page:
    """Return the page of a run.

    Parameters
    ----------
    run
        A search or a retraining, ended or not.
    table, column
        A benchmark table and the column that is read, by default the table's own: with it the page shows what a search
        draws.

    Raises
    ------
    UserError
        Where a run has neither an architecture nor an epoch yet, or no use for the table.
    """
    gap = gaps.read(run) if (run.path / gaps.NAME).is_file() else None
    diagnosis = diagnoses.read(run) if (run.path / diagnoses.NAME).is_file() else None
    drawn = draw_run(run, table=table, column=column)
    figures = {**drawn.figures, **({} if gap is None else gaps.figures(gap))}
    figures |= {} if diagnosis is None else diagnoses.figures(diagnosis)
    path = re.compile(rf"(?<!\S){re.escape(str(run.path))}(?= )")
    notes = tuple(path.sub(lambda _: run.path.resolve().name, note) for note in drawn.notes)
    told = RunFacts(run, run.recipe(), list(run.trace()), *read(run)[:2], figures, gap, diagnosis, drawn.range, notes)
    sections = [section for make in SECTIONS if (section := make(told)) is not None]
    html = document(f"{_title(told)} ({told.name})", lead(told), sections)
    return Page(html, tuple(section.name for section in sections), drawn.notes, drawn.arch, drawn.space)


# ---------------------------------------------------------------------- what was found


def lead(told: RunFacts) -> Html:
    """Say what ran, and whether it has ended."""
    kind = "An architecture trained alone" if told.alone else "A black-box search" if told.scored else "A search"
    count, unit = len(told.records), "evaluation" if told.scored else "epoch"
    length = f"{count:,} {unit}{'' if count == 1 else 's'}" if count else "nothing trained"
    state = "ended" if told.ended else "under way"
    seed = RunSettings.of(told.recipe).seed
    parts = [tag("p", text(kind), class_="kind"), tag("h1", text(_title(told)))]
    parts.append(tag("p", text(f"{told.name}: {length}, seed {seed}, {state}")))
    if told.recipe.title:
        parts.append(tag("p", text(told.recipe.title), class_="quiet"))
    return join(parts)


def _title(told: RunFacts) -> str:
    """Return method on space on data, by the names that one knows them by."""
    by = told.recipe.score.get("name", "") if told.scored else ""
    data = Path(str(told.recipe.data.get("name", ""))).name
    space = Path(str(told.recipe.space["name"])).stem
    if told.alone:
        return " on ".join(filter(None, (f"{space}, trained alone", data)))
    method = Path(str(told.recipe.method["name"])).stem
    return " on ".join(filter(None, (method, space, data))) + (f" by {by}" if by else "")


def answer(told: RunFacts) -> Section:
    """Tell the architecture, its size, and what it reached."""
    parts = []
    if told.alone and told.ended:
        result = told.run.result()
        low, high = result["interval_95"]
        parts.append(tag("p", text(f"{result['test_accuracy']:.2f} %"), class_="big"))
        parts.append(
            paragraph(
                f"of {result['test_images']:,} test images are classified rightly after the last of {result['epochs']} "
                f"epochs (95 % interval {low:.2f} to {high:.2f}). They are {result['tested_on']}."
            )
        )
    parts.append(tag("p", tag("code", text(told.space.write(told.arch)), class_="answer")))
    parts += [paragraph(note) for note in told.notes]
    parts.append(facts(_facts(told)))
    title = (
        "The answer" if told.ended and not told.alone else "The architecture" if told.alone else "The present choice"
    )
    return Section("answer", title, join(parts))


def _facts(told: RunFacts) -> Iterator[tuple[str, Html]]:
    if told.ended:
        counted = told.run.alone()
        when = "as trained" if told.alone else "at the size at which it would be trained"
        yield "Parameters", text(f"{counted['params']:,}, {when}")
        yield "Multiply-adds", text(f"{counted['macs']:,}")
        if not told.alone:
            for limit, cost in _limits(told):
                yield "Limit", text(f"{limit}: {cost}")
    score = told.run.score() if told.ended else None
    if score is not None:
        yield "Score", text(f"{score['value']:.2f} {score['unit']}".rstrip() + f", {score['title']}")
        many = f"{score['evaluations']:,}, of {score['architectures']:,} different architectures"
        yield "Evaluations", text(many)
        if score["notice"]:
            yield "To be known", text(score["notice"])
    if told.records:
        seconds = sum(record["seconds"] for record in told.records) + told.run.judged()["seconds"]
        yield "Time", text(lasted(seconds))
        yield "Memory", text(f"{max(record['peak_memory_mb'] for record in told.records):,.0f} MB at most")


def _limits(told: RunFacts) -> Iterator[tuple[Bound, str]]:
    """Yield each limit that was asked for, and what the answer costs in its unit."""
    if not told.recipe.limit:
        return
    try:
        checked = check_recipe(told.recipe)
    except Untrusted:
        for unit in EXAMPLES:
            if unit in told.recipe.limit:
                limit = Bound.parse(f"{unit}={told.recipe.limit[unit]}")
                yield limit, "not known, for the outside files of the run are not trusted"
        return
    bounds, size = checked.bounds, continued_size(checked, told.space)
    if size is None:
        size = told.space.alone().replace(**told.recipe.retrain.get("space", {}))
    size = size.deployed()
    path = told.run.checked(LATENCIES)
    prices = LatencyTable.read(path, size).prices if path.is_file() else None
    known = [bound for bound in bounds if bound.unit != "latency" or prices is not None]
    costs = budget(told.space, known, latency=prices, alone=size).costs(told.arch)
    for bound in bounds:
        if bound not in known:
            yield bound, "not known, for the measured latencies are gone"
            continue
        cost = costs[bound.unit]
        predicted = " as its parts predict" if bound.unit == "latency" else ""
        yield bound, f"{told_of(cost, bound)}{predicted}, {'held' if cost <= bound.most else 'not held'}"


def told_of(cost: float, bound: Bound) -> str:
    """Return a cost in the unit of a bound, in words."""
    return told(cost, bound.unit)


# ---------------------------------------------------------------------- how far it can be trusted


def trust(told: RunFacts) -> Section | None:
    """Tell what was found of the gap, in words; of a search whose gap was not measured, that it was not."""
    if told.gap is None:
        if not told.supernet or not told.ended:
            return None
        body = tag(
            "p",
            text(
                "It is not known how far this answer can be trusted: the gap between what the supernet says of "
                "architectures and what they are worth alone was not measured. Measure it with "
            ),
            tag("code", text(f"gapless gap {quoted(told.name)}")),
            text("."),
        )
    else:
        items = []
        for finding in gaps.findings(told.gap):
            word = gaps.WORDS[finding.sound]
            said = tag("span", text(finding.text))
            items.append(tag("li", tag("b", text(word)), text(" "), said, class_=word.replace(" ", "-")))
        body = join([tag("ul", *items, class_="findings"), tag("p", text(gaps.measured(told.gap)), class_="quiet")])
    return Section("trust", "How far it can be trusted", body)


def warnings(told: RunFacts) -> Section | None:
    """Tell what was to be warned of while the search ran: each thing once, when it began, and whether it lasted."""
    if told.alone or not told.records or "scores" not in told.records[0]:
        return None
    raised: dict[str, tuple[int, str]] = {}
    lasting: set[str] = set()
    for count in range(1, len(told.records) + 1):
        found = alarms(told.space, told.records[max(0, count - STILL - 1) : count])
        lasting = {alarm.name for alarm in found}
        for alarm in found:
            raised.setdefault(alarm.name, (count, alarm.text))
    if not raised:
        return None
    rows = []
    for name, (epoch, said) in raised.items():
        rest = " It was so at the end." if name in lasting else " It was not so any more at the end."
        begun = tag("b", text(f"epoch {epoch}"))
        rows.append(tag("li", begun, text(" "), tag("span", text(said + rest)), class_="not-sound"))
    return Section("warnings", "Warnings", tag("ul", *rows, class_="findings"))


def chain(told: RunFacts) -> Section | None:
    """Draw and tell the chain of accuracies from the supernet to the answer alone."""
    if told.gap is None:
        return None
    steps = ", ".join(f"{step['name']} {step['accuracy']:.1f} %" for step in told.gap["chain"])
    drawn = told.draw("gap-chain", f"Bars of the accuracies from the supernet to the answer alone: {steps}.")
    body = [drawn, _table(gaps.chain_table(told.gap), "The steps of the chain", words=(0, 3))]
    body.append(paragraph(gaps.by_statistics(told.gap), "quiet"))
    return Section("chain", "From the supernet to the answer alone", join(body))


def ranking(told: RunFacts) -> Section | None:
    """Draw and tell how well scores rank architectures."""
    if told.gap is None or not told.gap["measures"]:
        return None
    measures = {name: told["tau"] for name, told in told.gap["measures"].items()}
    taus = ", ".join(f"{name} {'unknown' if tau is None else f'{tau:.2f}'}" for name, tau in measures.items())
    drawn = told.draw("gap-ranking", f"Each score beside the truth, a dot an architecture. Kendall's tau: {taus}.")
    body = [drawn, _table(gaps.ranking_table(told.gap), "How well each score ranks")]
    body.append(paragraph(gaps.how_ranked(told.gap), "quiet"))
    return Section("ranking", f"Ranking of {gaps.ranked(told.gap)} architectures", join(body))


def fixing(told: RunFacts) -> Section | None:
    """Draw and tell where the accuracy is lost as decisions are fixed."""
    if told.gap is None or not told.gap["fixing"]:
        return None
    drawn = told.draw("gap-fixing", "The accuracy of the supernet as one decision after another is fixed.")
    rows = _table(gaps.fixing_table(told.gap), "Decisions in the order in which they are fixed")
    return Section("fixing", "Fixing one decision after another", join([drawn, rows]))


def _table(told: gaps.Table, caption: str, words: Sequence[int] = (0,)) -> Html:
    return table(told.head, told.rows, caption=caption, words=words, code=told.code)


# ---------------------------------------------------------------------- how it went


def cells(told: RunFacts) -> Section:
    """Draw the architecture."""
    drawn = told.draw("cell", f"The architecture as a graph: {told.space.write(told.arch)}")
    many = len(told.space.pictures(told.arch)) > 1
    return Section("cells", "The cells" if many else "The cell", drawn)


def scores(told: RunFacts) -> Section | None:
    """Draw the score of every option."""
    names = [name for name in told.figures if name.startswith("scores")]
    if not names:
        return None
    drawn = [told.draw(name, f"The score of every option by epoch: {name.replace('-', ', ')}.") for name in names]
    return Section("scores", "The scores", join([*drawn, paragraph(SCORES, "quiet")]))


def options(told: RunFacts) -> Section | None:
    """Tell and draw what was seen of the options: how alike they are, and which mature early."""
    if told.diagnosis is None:
        return None
    items = [tag("li", tag("span", _coded(finding))) for finding in diagnoses.findings(told.diagnosis)]
    body = [tag("ul", *items), paragraph(diagnoses.measured(told.diagnosis), "quiet")]
    for name in told.figures:
        if name.startswith("diagnose"):
            body.append(told.draw(name, f"What was seen of the options: {name.removeprefix('diagnose-')}."))
    body.append(_table(diagnoses.course_table(told.diagnosis), "The options early and late", words=(0, 1)))
    return Section("options", "The options", join(body))


def _coded(line: str) -> Html:
    """Return a line whose parts between backticks are code."""
    return join([tag("code", text(part)) if i % 2 else text(part) for i, part in enumerate(line.split("`"))])


def training(told: RunFacts) -> Section | None:
    """Draw losses and accuracies."""
    if "training" not in told.figures:
        return None
    last = told.records[-1]
    ends = {"loss": "train_loss", "training accuracy": "train_accuracy", "held-out accuracy": "valid_accuracy"}
    ends |= {"test accuracy": "test_accuracy"}
    at_end = ", ".join(f"{name} {last[key]:.2f}" for name, key in ends.items() if last.get(key) is not None)
    drawn = told.draw("training", f"Curves of {len(told.records)} epochs. In the last: {at_end}.")
    return Section("training", "The training", drawn)


def judged(told: RunFacts) -> Section | None:
    """Draw what the supernet said of candidates."""
    if "judged" not in told.figures:
        return None
    found = told.run.judged()
    archs = found["archs"]
    count = len({one["arch"] for one in archs})
    own = [one for one in archs if one["arch"] == str(told.arch)]
    said = f"The supernet judged {count:,} architectures."
    if own:
        said += f" The answer: {own[-1]['accuracy']:.1f} % of {own[-1]['images']:,} {found['on']}, with its weights."
    drawn = told.draw("judged", f"{said} Their accuracies in their order, and the best so far.")
    return Section("judged", "What the supernet judged", join([paragraph(said), drawn]))


def evaluations(told: RunFacts) -> Section | None:
    """Draw the scores that a black-box search was told."""
    if "evaluations" not in told.figures:
        return None
    best = told.records[-1]["best"]
    label = f"The score of {len(told.records):,} evaluations in their order; the best so far ends at {best:.2f}."
    return Section("evaluations", "The evaluations", told.draw("evaluations", label))


def draws(told: RunFacts) -> Section | None:
    """Draw and tell what the architectures are worth that the search drew."""
    if told.range is None:
        return None
    number = told.range
    names = ("min", "lower_quartile", "median", "upper_quartile", "max", "choice", "optimum")
    heads = ("worst", "lower quartile", "median", "upper quartile", "best", "current choice", "best of all")
    rows = [(head, f"{number[name]:.2f}") for head, name in zip(heads, names, strict=True)]
    last = f"{number['column']} after epoch {number['epoch']} (%)"
    drawn = told.draw("range", f"What the search draws is worth by epoch. {last}: median {number['median']:.2f}.")
    listed = table(("drawn architectures", last), rows, caption=f"What the search draws is worth: {last}")
    return Section("draws", "What the search draws", join([drawn, listed]))


# ---------------------------------------------------------------------- what repeats it


def repeat(told: RunFacts) -> Section:
    """Tell the commands that do it again, and what looks closer."""
    name = told.name
    if told.alone:
        lines = [f"gapless retrain {quoted(name)} --out {quoted(f'{name}-again')}"]
    else:
        lines = [f"gapless search {quoted(f'{name}/recipe.toml')} --out {quoted(f'{name}-again')}"]
        if told.ended:
            images = "" if told.recipe.data.get("name") else " --data IMAGES"
            lines += [f"gapless gap {quoted(name)}"] if told.supernet else []
            lines.append(f"gapless retrain {quoted(name)}{images}")
    if not told.ended:
        lines = [f"gapless resume {quoted(name)}", *lines]
    return commands("run", lines)


def recipe(told: RunFacts) -> Section:
    """Tell everything that determines the run, folded."""
    source = told.recipe.source
    everything = folded("recipe.toml, every setting", told.run.path / "recipe.toml")
    return Section("recipe", "Recipe", join([paragraph(source), everything] if source else [everything]))


def machine(told: RunFacts) -> Section | None:
    """Tell where it ran, by which versions."""
    found = machine_facts(told.run)
    return Section("machine", MACHINES, facts(found)) if found else None


SECTIONS: tuple[Callable[[RunFacts], Section | None], ...] = (
    *(answer, trust, warnings, chain, ranking, fixing),
    *(cells, scores, options, training, judged, evaluations, draws),
    *(repeat, recipe, machine),
)
"""The parts of a run's page, in their order."""
