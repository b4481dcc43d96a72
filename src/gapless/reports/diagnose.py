"""The page of a diagnosis: in plain words which options are alike, which mature early, whether the loss bends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gapless.analysis.alarm import BENT, EARLIEST, WINDOW
from gapless.core.errors import UserError
from gapless.core.text import code, sentence, shown
from gapless.reports import features
from gapless.reports.gap import BLUE, ORANGE, Table, markdown
from gapless.reports.panel import (
    BOTTOM,
    COLUMN,
    GREY,
    LEADER,
    PAGE,
    SMALL,
    End,
    Look,
    curve,
    epochs,
    foot,
    label_ends,
    last,
    limits,
    looks,
    panel,
    sheet,
    shortened,
    side_room,
    side_title,
    text_width,
    write,
)
from gapless.runs import manifest, schema
from gapless.runs.run import Run

NAME = "diagnose.json"
UNWATCHED = (
    "was not watched: switch `watch` on in the search to record gradients, accuracies by option and the curvature"
)
PANELS = (
    ("score", "scores", 1.0),
    ("accuracy alone (%)", "option_accuracy", 1.0),
    ("gradient (%)", "gradient_share", 100.0),
)
"""Panels of the course from top to bottom: title of the axis, field, factor."""
ALIKE, AHEAD = 0.05, 10.0
"""Least difference of mean correlations, and of accuracies in points (the standard error of one with 256 images is at
most 3.1), that a sentence is made of. Ours."""
HIGH, BETWEEN, TOP, GUTTER = 1.15, 0.16, 0.2, 0.3

Json = Mapping[str, Any]


def read(run: Run) -> dict[str, Any]:
    """Return the content of a run's ``diagnose.json``.

    Raises
    ------
    UserError
        Where nothing was diagnosed, or the file is spoilt.
    """
    path = run.path / NAME
    if not path.exists():
        raise UserError(f"{run.path} was not diagnosed yet. Type: gapless diagnose {run.path}")
    repair = f"Type: gapless diagnose {run.path}"
    manifest.check(run.path, NAME, repair)
    found: dict[str, Any] = schema.read(path, schema.DiagnosisFile, repair)
    schema.check_told(found, shown(path), repair, findings, alike_table, clusters_table, course_table)
    return found


def names(told: Json) -> list[str]:
    """Return what each run is called: its folder, with the one around it where two folders have one name."""
    paths = [Path(one["run"]).resolve() for one in told["runs"]]
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [f"{path.parent.name}/{path.name}" for path in paths]


# ---------------------------------------------------------------------- words


def findings(told: Json) -> list[str]:
    """Return what the numbers say, in the order of the page; where two runs stand side by side each sentence begins
    with the name of its run."""
    found = []
    for name, one in zip(names(told), told["runs"], strict=True):
        sentences = [
            _alike(one),
            _clusters(one),
            _early(one),
            _accuracy(one),
            _gradient(one),
            _matthew(one),
            _bent(one),
        ]
        prefix = f"{name}: " if len(told["runs"]) > 1 else ""
        found += [prefix + sentence for sentence in sentences if sentence]
    return found


def overall(one: Json) -> dict[str, float | None]:
    """Return the mean absolute correlations of a run, averaged over its decisions."""
    found: dict[str, float | None] = {}
    for name in ("weights", "free", "across"):
        values = [told[name] for told in one["alike"].values() if told[name] is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _alike(one: Json) -> str:
    if not one["places"]:
        return "No decision has two options left whose feature maps could be compared."
    told = overall(one)
    parts = {"weights": "options with weights", "free": "options without", "across": "one of each"}
    said = [f"{told[name]:.2f} between {what}" for name, what in parts.items() if told[name] is not None]
    if not said:
        return "No two feature maps vary with the images, so that none could be correlated."
    text = f"The mean absolute correlation of feature maps is {_listing(said)}."
    if told["weights"] is None or told["across"] is None:
        return text
    more = told["weights"] - told["across"]
    if more > ALIKE:
        return f"{text} Those with weights are more like each other than like the rest: they gather in a cluster."
    if more < -ALIKE:
        return f"{text} Those with weights are less like each other than like the rest: they complement each other."
    return f"{text} Those with weights are as much like each other as like the rest."


def _clusters(one: Json) -> str:
    split = [value for place in one["places"] if (value := apart(place)) is not None]
    if not split:
        return ""
    return (
        f"Two clusters of the mean maps part the options with weights from those without at {sum(split)} of "
        f"{len(split)} places."
    )


def apart(place: Json) -> bool | None:
    """Return whether two clusters are the options with weights and those without; None where all are of one kind, or no
    two maps differ."""
    kinds = [place["groups"][option] for option in place["options"]]
    if len(set(kinds)) < 2 or "2" not in place["clusters"]:
        return None
    return len(set(zip(kinds, place["clusters"]["2"], strict=True))) == 2


def _early(one: Json) -> str:
    scores = one["course"]["scores"]
    if not scores:
        return "No score told options apart while it searched."
    early, late = (_leader(scores, one, end) for end in ("early", "late"))
    if early is None or late is None:
        return ""
    text = f"The option with the highest mean score is {early[0]} ({early[1]:.4f}) early"
    if early[0] == late[0]:
        return f"{text} and still late ({late[1]:.4f})."
    return f"{text} and {late[0]} ({late[1]:.4f}) late."


def _accuracy(one: Json) -> str:
    told = one["course"]["option_accuracy"]
    if not one["watched"]:
        return f"The search {UNWATCHED}."
    found: list[float] = []
    for kind in ("weights", "free"):
        lines = [ends(values, one["part"]) for option, values in told.items() if one["groups"].get(option) == kind]
        found += [v for v in (_mean([line[end] for line in lines]) for end in (0, 1)) if v is not None]
    if len(found) < 4:
        return ""
    early, late, free_early, free_late = found
    text = (
        f"Taken alone by all decisions, options with weights reach {early:.1f} % early and {late:.1f} % late on "
        f"average, those without {free_early:.1f} % and {free_late:.1f} %"
    )
    if abs(free_early - early) < AHEAD:
        return f"{text}: neither is clearly ahead early."
    if early > free_early:
        return f"{text}: those with weights mature first."
    if late > free_late + AHEAD:
        return f"{text}: those without weights mature first, and are overtaken."
    return f"{text}: those without weights mature first, and are not overtaken."


def _gradient(one: Json) -> str:
    told = one["course"]["gradient_share"]
    found = _leader(told, one, "late")
    if found is None or len(told) < 2:
        return ""
    early = ends(told[found[0]], one["part"])[0]
    before = "" if early is None else f" (early {100 * early:.0f} %)"
    return (
        f"Of the gradient that reaches options with weights, {found[0]} receives {100 * found[1]:.0f} % late{before}."
    )


def _matthew(one: Json) -> str:
    told = one["course"]["matthew"]
    if told is None:
        return ""
    if abs(told["rho"]) <= 2 * told["chance"]:
        says = f"that cannot be told from chance, whose standard deviation is {told['chance']:.2f}"
    elif told["rho"] > 0:
        says = "what is ahead early receives more of it"
    else:
        says = "what is ahead early receives less of it"
    return (
        f"Matthew index {told['rho']:+.2f}, the rank correlation between early score and late share of the gradient "
        f"among options with weights, averaged over {many(told['decisions'], 'decision')}: {says}."
    )


def _bent(one: Json) -> str:
    values = one["course"]["hessian"]
    if not one["watched"]:
        return ""
    early, late = ends(values, one["part"])
    if early is None or late is None:
        return (
            f"{one['method']} has no loss that is differentiable by architecture parameters, so that there is no "
            "curvature to measure."
        )
    text = f"The largest eigenvalue of the Hessian of the architecture's loss is {early:.3g} early and {late:.3g} late"
    if one["course"]["sharp"] is not None:
        return f"{text}; RobustDARTS would have stopped, at the latest after epoch {one['course']['sharp']}."
    if one["epochs"] <= EARLIEST + WINDOW // 2 + 4:
        return f"{text}; the search is too short for the criterion of RobustDARTS, which looks from epoch 17 on."
    return f"{text}; the criterion of RobustDARTS (its mean over {WINDOW} epochs grows by 1/{BENT:g}) is not met."


def ends(values: Sequence[float | None], part: int) -> tuple[float | None, float | None]:
    """Return the means of the first and of the last ``part`` values that are known.

    >>> ends([1.0, 3.0, None, 8.0], 2)
    (2.0, 8.0)
    """
    return _mean(values[:part]), _mean(values[-part:])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _leader(told: Mapping[str, Sequence[float | None]], one: Json, end: str) -> tuple[str, float] | None:
    """Return the option with the largest mean at an end, with that mean."""
    found = {o: v for o, values in told.items() if (v := ends(values, one["part"])[end == "late"]) is not None}
    return max(found.items(), key=lambda pair: pair[1]) if found else None


def many(count: int, what: str) -> str:
    """Return a number of things.

    >>> many(1, "epoch"), many(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ---------------------------------------------------------------------- the page


def page(told: Json, drawn: Mapping[str, str]) -> str:
    """Return the page as Markdown; ``drawn`` says where each figure is."""
    called = names(told)
    lines = ["# The options of a search", ""]
    lines += [
        f"* {sentence(name)}: {code(one['method'])}, {one['epochs']} epochs"
        for name, one in zip(called, told["runs"], strict=True)
    ]
    lines += ["", measured(told), "", *(f"* {sentence(text)}" for text in findings(told)), ""]
    figures = [name for name in drawn if name.startswith("diagnose-features")]
    if figures:
        lines += ["## How alike the feature maps are", "", *markdown(alike_table(told)), ""]
        lines += [line for name in figures for line in (f"![Feature maps of one decision]({drawn[name]})", "")]
        lines += ["Clusters of the mean maps, by their number: options of one cluster stand in one bracket.", ""]
        lines += [*markdown(clusters_table(told)), ""]
    if "diagnose-course" in drawn:
        lines += ["## Which options mature early", "", f"![Options over the epochs]({drawn['diagnose-course']})", ""]
        lines += [*markdown(course_table(told)), ""]
    if "diagnose-hessian" in drawn:
        lines += ["## How sharply the loss bends", "", f"![The largest eigenvalue]({drawn['diagnose-hessian']})", ""]
    return "\n".join(lines).rstrip() + "\n"


def measured(told: Json) -> str:
    """Return over which images and which epochs it was looked at."""
    parts = dict.fromkeys(one["part"] for one in told["runs"])
    spans = _listing([many(part, "epoch") for part in parts])
    return (
        f"Feature maps are of {told['images']:,} training images, at the first and the last decision of each kind of "
        f"cell. Early and late mean the first and the last {spans}."
    )


def alike_table(told: Json) -> Table:
    """Return the mean absolute correlations of each decision that was looked at, and of all."""
    rows: list[tuple[str, ...]] = []
    for name, one in zip(names(told), told["runs"], strict=True):
        for decision, means in [*one["alike"].items(), ("all", overall(one))]:
            cells = ("-" if means[key] is None else f"{means[key]:.2f}" for key in ("weights", "free", "across"))
            rows.append((name, decision, *cells))
    return Table(("run", "decision", "with weights", "without", "one of each"), rows, code=(1,))


def clusters_table(told: Json) -> Table:
    """Return the clusters of every place."""
    rows: list[tuple[str, ...]] = []
    for name, one in zip(names(told), told["runs"], strict=True):
        for place in one["places"]:
            found = []
            for count in ("2", "3", "4"):
                labels = place["clusters"].get(count, [])
                groups = [
                    " ".join(o for o, label in zip(place["options"], labels, strict=True) if label == number)
                    for number in dict.fromkeys(labels)
                ]
                found.append(" ".join(f"[{group}]" for group in groups) or "-")
            rows.append((name, place["place"].removeprefix("network."), *found))
    return Table(("run", "place", "2", "3", "4"), rows, code=(1,))


def course_table(told: Json) -> Table:
    """Return score, accuracy alone and share of the gradient of each option, early and late."""
    rows: list[tuple[str, ...]] = []
    for name, one in zip(names(told), told["runs"], strict=True):
        told_of = one["course"]
        for option in one["groups"]:
            cells: list[str] = []
            for _, field, factor in PANELS:
                values = ends(told_of[field].get(option, ()), one["part"])
                form = "{:.4f}" if field == "scores" else "{:.1f}"
                cells += ["-" if v is None else form.format(factor * v) for v in values]
            if set(cells) != {"-"}:
                rows.append((name, option, *cells))
    heads = [f"{title}, {end}" for title, *_ in PANELS for end in ("early", "late")]
    return Table(("run", "option", *heads), rows, code=(1,))


# ---------------------------------------------------------------------- figures


def figures(told: Json) -> dict[str, Figure]:
    """Return name -> figure: ``diagnose-features-`` and a decision, for each that was looked at in all runs,
    ``diagnose-course``, and ``diagnose-hessian`` where a curvature was measured."""
    called, found = names(told), {}
    for decision in told["runs"][0]["alike"]:
        rows = [
            (name, [place for place in one["places"] if place["decision"] == decision])
            for name, one in zip(called, told["runs"], strict=True)
        ]
        label = decision.replace(":", "-").replace("<-", "-")
        found[f"diagnose-features-{label}"] = features.drawn(decision, [row for row in rows if row[1]])
    if any(one["course"][field] for one in told["runs"] for _, field, _ in PANELS):
        found["diagnose-course"] = course(told)
    if any(v is not None for one in told["runs"] for v in one["course"]["hessian"]):
        found["diagnose-hessian"] = hessian(told)
    return found


def course(told: Json) -> Figure:
    """Draw what the trace tells of the options, a curve for each, with a thin line where a stage starts; a column for
    each run, in the width of a column of text for one and of a page for two."""
    runs = told["runs"]
    shown = [row for row in PANELS if any(one["course"][row[1]] for one in runs)]
    options = list(dict.fromkeys(o for one in runs for o in one["groups"]))
    look = looks(options)
    values = {
        field: [factor * v for one in runs for line in one["course"][field].values() for v in line if v is not None]
        for _, field, factor in shown
    }
    left = side_room(HIGH, list(values.values()))
    room = LEADER + max(map(text_width, options)) + 0.03
    whole = COLUMN if len(runs) == 1 else PAGE
    wide = (whole - left - len(runs) * room - (len(runs) - 1) * GUTTER) / len(runs)
    top = TOP if len(runs) > 1 else 0.08
    figure = sheet(whole, top + len(shown) * (HIGH + BETWEEN) - BETWEEN + BOTTOM)
    for number, (name, one) in enumerate(zip(names(told), runs, strict=True)):
        corner = left + number * (wide + room + GUTTER)
        if len(runs) > 1:
            write(figure, corner, 0.11, shortened(name, wide + room, weight="bold"), weight="bold", size=SMALL)
        for line, (title, field, factor) in enumerate(shown):
            upper = top + line * (HIGH + BETWEEN)
            if number == 0:
                side_title(figure, upper + HIGH / 2, title)
            if not one["course"][field]:
                write(figure, corner, upper + HIGH / 2, "not recorded", size=SMALL, color=GREY)
                continue
            axes = panel(figure, corner, upper, wide, HIGH)
            epochs(axes, one["epochs"], one["starts"], labels=line + 1 == len(shown))
            limits(axes, values[field])
            axes.tick_params(axis="y", labelleft=number == 0)
            drawn = {
                option: curve(axes, [None if v is None else factor * v for v in told_of], look[option])
                for option, told_of in one["course"][field].items()
            }
            label_ends(axes, [End(o, y, look[o]) for o, line in drawn.items() if (y := last(line)) is not None])
        foot(figure, corner, corner + wide)
    return figure


def hessian(told: Json) -> Figure:
    """Draw the largest eigenvalue over the epochs, a curve for each run, in the width of a column; a dot stands where
    the criterion of RobustDARTS was met last."""
    dashed = (Look(BLUE.colour), Look(ORANGE.colour, (0, (4, 1.4))))
    rows = [
        (shortened(name, 1.0), one["course"], style)
        for name, one, style in zip(names(told), told["runs"], dashed, strict=False)
    ]
    values = [v for _, one, _ in rows for v in one["hessian"] if v is not None]
    labelled = len(rows) > 1
    room = LEADER + max(text_width(name) for name, *_ in rows) + 0.03 if labelled else 0.12
    left = side_room(HIGH, [values])
    figure = sheet(COLUMN, 0.08 + HIGH + BOTTOM)
    axes = panel(figure, left, 0.08, COLUMN - left - room, HIGH)
    epochs(axes, max(len(one["hessian"]) for _, one, _ in rows), ())
    limits(axes, values)
    found = [(name, style, curve(axes, one["hessian"], style), one["sharp"]) for name, one, style in rows]
    for _, style, line, sharp in found:
        if sharp is not None:
            axes.plot([sharp], [line[sharp - 1]], "o", color=style.colour, markersize=4, clip_on=False)
    if labelled:
        label_ends(axes, [End(name, y, style) for name, style, line, _ in found if (y := last(line)) is not None])
    side_title(figure, 0.08 + HIGH / 2, "largest eigenvalue")
    foot(figure, left, COLUMN - room)
    return figure
