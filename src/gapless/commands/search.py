"""``gapless search``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gapless.commands.options import Option, bind, peek, print_json, settings, table
from gapless.core.errors import UserError
from gapless.core.method import Method
from gapless.core.plan import Train
from gapless.data import load
from gapless.engine.search import Record
from gapless.runs.recipe import MEASURED, RUN, TABLES, Recipe, Resolved
from gapless.runs.run import Run
from gapless.studies.search import Found, search

DOC = """Search for an architecture and print it, its size, where the run lies and what to type next.

Without a recipe, a space or a method this is the demonstration: DrNAS on NAS-Bench-201 with the bundled digits.
The options listed below are those of the space and the method chosen by `--space` and `--method`.

Examples: `gapless search`, `gapless search --space darts --method dropnas --data digits --epochs 10 --space.width 8`,
`gapless search my_recipe.toml --seed 3`."""
DEFAULT = {"space": {"name": "nasbench201"}, "method": {"name": "drnas"}, "data": {"name": "digits"}}


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space and the method that they name."""
    wanted = arguments[:1] == ["search"]
    recipe = _base(arguments) if wanted else Recipe(**DEFAULT)  # type: ignore[arg-type]
    space, method, setting = recipe.definitions()
    options = [
        Option(
            "space", str, "Where to search: a space of `gapless list spaces`, or a file.", default=recipe.space["name"]
        ),
        Option("method", str, "How: a method of `gapless list methods`, or a file.", default=recipe.method["name"]),
        Option(
            "data",
            str,
            "`digits`, a folder of images or Parquet files, or a name on the Hugging Face hub.",
            default=recipe.data["name"],
        ),
        Option(
            "epochs",
            int,
            "Short for --train.epochs.",
            default={**_shown(setting.train), **recipe.train}["epochs"] if issubclass(method, Method) else None,
        ),
        *(
            Option(name, kind, text, default=recipe.run.get(name, default))
            for name, (kind, default, text) in RUN.items()
        ),
        Option("out", Path, "Folder of the run.", default="runs/SPACE-METHOD-DATA-seedN"),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        *settings("space", space, f"Space {recipe.space['name']}", {**setting.space, **recipe.space}, skip=MEASURED),
        *settings("method", method, f"Method {recipe.method['name']}", recipe.method, skip=("seed",)),
        *settings("train", Train, "Training", {**_shown(setting.train), **recipe.train}),
        *settings("data", load, "Data", recipe.data),
    ]

    def body(given: str | None, typed: Mapping[str, Any]) -> None:
        if given != _recipe(arguments):
            raise UserError(f"Put the recipe first: gapless search {given} --option ...")
        _run(recipe, typed)

    return bind(
        body, DOC, [("recipe", str, "A recipe: a TOML file, or one of `gapless list recipes`.", False)], options
    )


def _base(arguments: Sequence[str]) -> Recipe:
    """Return the recipe that the options are laid over: the one named, the demo, or the paper's settings of what is
    named."""
    given = _recipe(arguments)
    named = {t: {"name": n} for t in ("space", "method", "data") if (n := peek(arguments, t)) is not None}
    if given is not None:
        base = Recipe.read(given)
    elif "space" in named or "method" in named:
        base = Recipe(**DEFAULT)  # type: ignore[arg-type]
    else:
        base = Recipe.read("demo")
    return base.over(**{t: v for t, v in DEFAULT.items() if not getattr(base, t)}).over(**named)


def _recipe(arguments: Sequence[str]) -> str | None:
    """Return the recipe typed right behind the command: only there can it be told from the value of an option."""
    return arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else None


def _shown(train: Train) -> dict[str, Any]:
    return {name: getattr(train, name) for name in train.__dataclass_fields__}


def _run(recipe: Recipe, typed: Mapping[str, Any]) -> None:
    changes = {name: table(typed, name) for name in TABLES if name != "run"}
    if "epochs" in typed:
        changes["train"] = {"epochs": typed["epochs"], **changes["train"]}
    changes["run"] = {name: typed[name] for name in RUN if name in typed}
    recipe = recipe.over(**changes)
    seed = recipe.run.get("seed", 0)
    out = typed.get("out") or _free(
        f"runs/{Path(recipe.space['name']).stem}-{Path(recipe.method['name']).stem}-{Path(recipe.data['name']).name}-seed{seed}"
    )
    with Watch() as watch:
        found = search(recipe, out=out, started=watch.started, told=watch.told)
    _tell(found)
    if typed.get("json"):
        print_json(found.summary())


def _free(stem: str) -> Path:
    """Return a folder that is not there yet: the stem, or the stem with a number."""
    path, n = Path(stem), 2
    while path.exists():
        path, n = Path(f"{stem}-{n}"), n + 1
    return path


class Watch:
    """Shows a search under way: a bar with the remaining time on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.live)
        self.task: Any = None
        self.epochs = 0

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def started(self, resolved: Resolved, run: Run | None) -> None:
        """Say what is searched."""
        space, data = resolved.space, resolved.data
        names = {table: getattr(resolved.recipe, table)["name"] for table in ("space", "method")}
        self.console.print(f"Searching {names['space']} ({space.count:,} architectures) with {names['method']}.")
        if not issubclass(resolved.method_class, Method):
            return
        self.epochs = resolved.train.epochs
        sizes = f"{len(data.train):,} training images of {data.size[0]}x{data.size[1]} in {len(data.classes)} classes"
        self.console.print(f"Data: {data.name}, {sizes}. {self.epochs} epochs of batches of {resolved.train.batch}.")
        self.task = self.bar.add_task("epochs", total=self.epochs)

    def told(self, record: Record) -> None:
        """Say what an epoch did."""
        valid = "" if record.valid_accuracy is None else f", held-out accuracy {record.valid_accuracy:5.1f} %"
        text = f"loss {record.train_loss:6.3f}, training accuracy {record.train_accuracy:5.1f} %{valid}"
        if self.live:
            self.bar.update(self.task, advance=1, description=text)
        else:
            print(
                f"epoch {record.epoch + 1}/{self.epochs}: {text}, {record.images_per_second:,.0f} images/s",
                file=sys.stdout,
                flush=True,
            )


def _tell(found: Found) -> None:
    console, facts = Console(highlight=False, soft_wrap=True, markup=False), found.summary()
    console.print(f"\nFound in {facts['seconds']:.0f} s:\n  {facts['notation']}")
    console.print(
        f"  {facts['params']:,} parameters and {facts['macs']:,} MACs at the size at which it would be trained alone"
    )
    if found.run is not None:
        console.print(f"Run folder: {found.run.path} (the drawn cell: {found.run.path / 'cell.svg'})")
        console.print(f"Next: gapless evaluate {found.run.path}")
