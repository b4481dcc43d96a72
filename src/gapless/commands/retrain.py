"""``gapless retrain``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapless.commands.evaluate import space_of
from gapless.commands.options import TRUST, Option, bind, given_run, peek, print_json, run_settings, settings, table
from gapless.commands.out import into, trust_of
from gapless.commands.watch import WatchTraining
from gapless.core.errors import unknown
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.core.settings import Epochs
from gapless.core.text import quoted
from gapless.data import load
from gapless.runs.checked import OF_SUPERNETS, Start
from gapless.studies.results import TrainingResult
from gapless.studies.retrain import plan, train

DOC = """Train an architecture alone and report its accuracy on the test images after the last epoch.

Give a run folder (its data, its recipe's protocol and its device hold, where nothing else is said), or an architecture
in any notation with `--data`. The size is that at which the paper trains an architecture alone, unless `--space.*` says
otherwise. The run can be interrupted, and goes on with `gapless resume`.

Protocols: `cifar` (cutout, auxiliary head, drop path), `imagenet` (mobile), `shufflenet` and `proxyless` (ImageNet),
`nasbench201`, and `photos` for photographs of your own (random resized crops, RandAugment, label smoothing, moving
average).

Examples: `gapless retrain runs/RUN`, `gapless retrain DARTS_V2 --data cifar10_folder`,
`gapless retrain runs/RUN --data my_photos --data.size 128 --protocol photos --epochs 100`."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space and the protocol."""
    space = space_of(arguments)
    name = peek(arguments, "protocol") or (space.protocol if space else "photos")
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    shown = PROTOCOLS[name][1]
    run = run_settings(skip=OF_SUPERNETS)
    options = [
        Option("data", str, "`digits`, a folder, or a name on the Hugging Face hub; by default the run's."),
        Option("protocol", str, f"How to train: {', '.join(PROTOCOLS)}; by default the recipe's or the space's own."),
        Option(
            "start", Start, "`fresh` weights, or `inherited` ones of the run's supernet; by default as its method says."
        ),
        Option("epochs", Epochs, "Short for --retrain.epochs.", default=shown.epochs),
        *run,
        Option("space", str, "The space of the architecture; by default that of the run, or the one that can read it."),
        Option("out", Path, "Folder of the run.", default="runs/SPACE-retrain-DATA-seedN"),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
        *settings("retrain", Protocol, f"Protocol {name}", {n: getattr(shown, n) for n in shown.__dataclass_fields__}),
        *settings("data", load, "Data"),
    ]
    if space is not None and not space.python_only:
        full = space.alone()
        fields = {n: getattr(full, n) for n in full.__dataclass_fields__}
        options += settings("space", type(space), f"Space {space.label}", fields)
    return bind(_run, [("architecture", str, "A run folder or an architecture.", True)], options)


def _run(given: str, typed: Mapping[str, Any]) -> None:
    protocol = table(typed, "retrain")
    if "epochs" in typed:
        protocol = {"epochs": typed["epochs"], **protocol}
    if "start" in typed:
        protocol["start"] = typed["start"]
    if "protocol" in typed:
        protocol["protocol"] = typed["protocol"]
    data = table(typed, "data")
    if "data" in typed:
        data["name"] = typed["data"]
    recipe = plan(
        given,
        data=data,
        space=typed.get("space"),
        fields=table(typed, "space"),
        protocol=protocol,
        run=given_run(typed),
    )
    seed = recipe.run.get("seed", 0)
    stem = f"runs/{Path(recipe.space['name']).stem}-retrain-{Path(recipe.data['name']).name}-seed{seed}"
    with WatchTraining() as watch:
        result = into(typed.get("out"), stem, lambda out: train(recipe, out=out, on_progress=watch))
    tell(result)
    if typed.get("json"):
        print_json(result.summary())


def tell(result: TrainingResult) -> None:
    """Say what a training came to, and what to type next."""
    console, facts = Console(highlight=False, soft_wrap=True, markup=False), result.summary()
    low, high = facts["interval_95"]
    console.print(
        f"\nTest accuracy {facts['test_accuracy']:.2f} % (95 % interval {low:.2f} to {high:.2f}), after the last of "
        f"{facts['epochs']} epochs, {facts['seconds']:.0f} s"
    )
    console.print(f"  on {facts['test_images']:,} images: {facts['tested_on']}")
    console.print(f"  {facts['params']:,} parameters and {facts['macs']:,} MACs")
    if result.run is not None:
        console.print(f"Run folder: {result.run.path}")
        console.print(f"Next: gapless export {quoted(result.run.path)}{trust_of(result.run)}")
