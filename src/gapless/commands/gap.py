"""``gapless gap``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from gapless.commands.evaluate import space_of
from gapless.commands.options import TRUST, Option, bind, peek, print_json, settings, table
from gapless.core.errors import UserError, unknown
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.core.settings import Natural, Processes, Range, Sample, Seed, Threads
from gapless.data import load
from gapless.studies.defaults import GAP_ARCHS, GAP_BUDGETS, GAP_IMAGES

if TYPE_CHECKING:
    from gapless.studies.jobs import Job, Outcome

DOC = """Measure how far what the supernet of a search says can be trusted: the way from the supernet to its answer
alone, how well it ranks architectures, how firmly it had decided, and what parameters and chance would have said.

What architectures are worth alone is looked up in a table (`--table`), or found by training all of the sample from
scratch (`--trainings`) as `--protocol`, `--retrain.*` and `--data.*` say, in the folder `alone` of the run. Where these
are interrupted, the same command goes on.

Writes gap.json, gap.md and figures into the run folder, and changes nothing else there.

Examples: `gapless gap runs/RUN --table accuracy.parquet`,
`gapless gap runs/RUN --archs 8 --trainings 2 --jobs 2 --retrain.epochs 20`."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: the protocol shown follows the run's space."""
    space = space_of(arguments[:2])
    name = peek(arguments, "protocol") or (space.protocol if space else "photos")
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    options = [
        Option("table", Path, "A benchmark table: what architectures are worth alone."),
        Option("column", str, "Column of the table; by default the table's own."),
        Option("archs", Sample, "Random architectures to rank beside the answer.", default=GAP_ARCHS),
        Option("images", Natural, "Test images by which all are judged.", default=GAP_IMAGES),
        Option(
            "budgets",
            tuple[int, ...],
            "Batches of fine-tuning after which they are judged again; 0 tunes none.",
            default=GAP_BUDGETS,
        ),
        Option("beside", tuple[Path, ...], "Runs of other seeds: how far they rank and answer alike."),
        Option(
            "trainings",
            Annotated[int, Range(0, 1000)],
            "Trainings from scratch of each of them; two show how much is noise.",
            default=0,
        ),
        Option("jobs", Processes, "Trainings at a time, each in a process of its own with one thread.", default=1),
        Option("protocol", str, f"How to train: {', '.join(PROTOCOLS)}; by default the recipe's or the space's own."),
        Option("device", str, "auto, cpu or cuda.", default="auto"),
        Option("threads", Threads, "CPU threads; 0 leaves PyTorch's own, and is one of a training.", default=0),
        Option("seed", Seed, "Of the random architectures.", default=0),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
        *settings("retrain", Protocol, f"Protocol {name} (--trainings)", dataclasses.asdict(PROTOCOLS[name][1])),
        *settings("data", load, "Images of the trainings, where they are not the search's"),
    ]
    return bind(_run, [("run", Path, "Folder of a finished search that trained a supernet.", True)], options)


def _run(run: Path, typed: Mapping[str, Any]) -> None:
    from gapless.reports.gap import WORDS, measured
    from gapless.studies.alone import Trainings
    from gapless.studies.gap import drawn, gap

    console = Console(highlight=False, soft_wrap=True, markup=False)
    count, threads = typed.get("trainings", 0), typed.get("threads", 0)
    protocol, data = table(typed, "retrain"), table(typed, "data")
    if "protocol" in typed:
        protocol["protocol"] = typed["protocol"]
    if not count:
        for name in ("protocol", "jobs", *(n for n in typed if n.startswith(("retrain.", "data.")))):
            if name in typed:
                raise UserError(f"--{name} is of trainings from scratch; say how many of each, as: --trainings 2.")
    asked = Trainings(count, typed.get("jobs", 1), protocol, data, threads) if count else None
    budgets = typed.get("budgets", GAP_BUDGETS)

    def begun(job: Job, came: Outcome | None) -> None:
        told = "begun" if came is None else f"{came.state} in {came.seconds:.0f} s {came.error}".rstrip()
        console.print(f"training {job.name}: {told}")

    found = gap(
        run,
        table=typed.get("table"),
        column=typed.get("column"),
        archs=typed.get("archs", GAP_ARCHS),
        images=typed.get("images", GAP_IMAGES),
        budgets=() if budgets == (0,) else budgets,
        beside=typed.get("beside", ()),
        trainings=asked,
        begun=begun,
        device=typed.get("device", "auto"),
        threads=threads,
        seed=typed.get("seed", 0),
        told=console.print,
    )
    page = drawn(run)
    console.print(f"\n{measured(found.plain())}")
    for finding in page.findings:
        console.print(f"{WORDS[finding.sound]:>9}: {finding.text}")
    console.print(f"\nPage: {page.path} ({found.seconds:.0f} s)")
    if typed.get("json"):
        print_json({**found.plain(), "page": str(page.path)})
