"""``gapless compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapless.commands.options import TRUST, Option, bind, given_run, peek, print_json, run_settings, settings, table
from gapless.commands.watch import WatchJobs
from gapless.core import catalogue
from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.core.settings import Epochs, Natural, NonNegative, Processes
from gapless.data import load
from gapless.reports.comparison import markdown
from gapless.runs.checked import check_recipe, settings_of
from gapless.runs.comparison import Comparison, Folder
from gapless.runs.recipe import MEASURED, Recipe
from gapless.studies.compare import SEEDS, SPACE, Compared, compare

DOC = """Search with several methods under several seeds, and tell what the answers are worth and what so few seeds can
show.

Give a recipe, whose `[methods.NAME]` hold settings of single methods, or `--space`. What an answer is worth is its
value in a benchmark table (`--table`), else the accuracy of the answer trained alone (`--retrain`).

The same command again goes on with what was interrupted or failed; runs that have ended are not run again. Name more
methods or seeds, and they are added; `gapless compare FOLDER` goes on with what was asked last. A failed run does not
keep the others from running, and leaves its error and a log.

Examples: `gapless compare nb201_cifar10_cpu --methods darts,drnas,random --seeds 0,1,2 --data cifar10_folder
--table accuracy.parquet --jobs 2 --out runs/compared`, `gapless compare runs/compared --methods darts,drnas,enas,random
--table accuracy.parquet`, `gapless compare --space darts --methods darts,dropnas,random --retrain --retrain.epochs 20
--ray auto --out /shared/compared`."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space and the methods that they name."""
    before = _before(arguments)
    recipe = _base(arguments, before)
    for name in filter(None, (recipe.space["name"], recipe.score.get("name"))):
        recipe.permit(name)
    space = catalogue.find(recipe.space["name"], "spaces")
    score = catalogue.find(recipe.score["name"], "scores") if "name" in recipe.score else None
    named = _listed(peek(arguments, "methods")) or (before.methods if before else ())
    methods = {m: catalogue.find(m, "methods", "searchers") for m in named if not m.endswith(".py")}
    shown: dict[str, Any] = dict(recipe.train)
    said = {n: f"{_shown(getattr(before, n))}" for n in ("methods", "seeds", "data")} if before else {}
    options = [
        Option("methods", str, "What is compared, with commas: `darts,drnas,random`.", default=said.get("methods")),
        Option("seeds", str, "Seeds, with commas.", default=said.get("seeds", _shown(SEEDS))),
        Option(
            "data",
            str,
            "`digits`, folders of images or Parquet files, or names on the Hugging Face hub, with commas.",
            default=said.get("data") or recipe.data.get("name", None if recipe.score else "digits"),
        ),
        Option("space", str, "Where to search: a space of `gapless list spaces`.", default=recipe.space["name"]),
        Option("baseline", str, "The method that the others are compared with; by default the first.", default=None),
        Option("table", Path, "A benchmark table that says what answers are worth."),
        Option(
            "column",
            str,
            "Column of the table; with commas one for each of several sets of images. By default the table's own.",
        ),
        Option("retrain", bool, "Train every answer alone: its test accuracy is what it is worth, without a table."),
        Option("protocol", str, f"How: {', '.join(PROTOCOLS)}; by default the recipe's or the space's own."),
        Option("jobs", Processes, "Runs at a time, each in a process of its own with one thread.", default=1),
        Option(
            "ray",
            str,
            "Run them on a Ray cluster instead: HOST:PORT, `auto`, or `local` to start one here. "
            "All nodes must see --out and the images under the same paths.",
        ),
        Option("gpus", NonNegative, "GPUs that a run takes of the cluster; 0.5 shares one between two.", default=0),
        Option("out", Path, "Folder of the comparison.", default="runs/SPACE-comparison"),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
        Option("epochs", Epochs, "Short for --train.epochs.", default=shown.get("epochs")),
        Option(
            "score",
            str,
            "What black-box searches go by: a score of `gapless list scores`.",
            default=recipe.score.get("name"),
        ),
        Option(
            "evaluations",
            Natural,
            "How many architectures a black-box search has scored.",
            default=recipe.score.get("evaluations"),
        ),
        *run_settings(recipe.run, skip=("seed",)),
        *settings("space", space, f"Space {recipe.space['name']}", recipe.space, skip=MEASURED),
        *(
            option
            for name, kind in methods.items()
            for option in settings(
                f"methods.{name}",
                kind,
                f"Method {name}",
                settings_of(kind, space, recipe.methods.get(name, {})),
                skip=("seed",),
            )
        ),
        *([] if score is None else settings("score", score, f"Score {recipe.score['name']}", recipe.score)),
        *settings("train", Train, "Training", shown),
        *settings("retrain", Protocol, "Training of the answers (--retrain)", recipe.retrain),
        *settings("data", load, "Data", recipe.data),
    ]

    def body(given: str | None, typed: Mapping[str, Any]) -> None:
        if given != _given(arguments):
            raise UserError(f"Put the recipe first: gapless compare {given} --option ...")
        _run(recipe, before, Path(given) if before is not None and given else None, typed)

    place = "A recipe (a TOML file, or one of `gapless list recipes`), or the folder of a comparison to go on with."
    return bind(body, [("recipe", str, place, False)], options)


def _before(arguments: Sequence[str]) -> Comparison | None:
    """Return what was asked last in the folder that is named first; None where that is no comparison."""
    given = _given(arguments)
    if given is None or not Path(given).is_dir():
        return None
    return Folder.open(given).comparison()


def _base(arguments: Sequence[str], before: Comparison | None) -> Recipe:
    given = _given(arguments)
    base = before.recipe if before else Recipe() if given is None else check_recipe(Recipe.read(given)).recipe
    if "name" in base.method:  # so that every method has its settings in one place
        own = {k: v for k, v in base.method.items() if k != "name"}
        base = Recipe(**{**vars(base), "method": {}, "methods": {**base.methods, base.method["name"]: own}})
    named = {t: {"name": n} for t in ("space", "score") if (n := peek(arguments, t)) is not None}
    base = base.over(**named)
    return base if base.space else base.over(space={"name": SPACE})


def _given(arguments: Sequence[str]) -> str | None:
    """Return what was typed right behind the command: only there can it be told from the value of an option."""
    return arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _shown(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def _run(recipe: Recipe, before: Comparison | None, folder: Path | None, typed: Mapping[str, Any]) -> None:
    changes = {name: table(typed, name) for name in ("space", "score", "train", "retrain", "data")}
    if "epochs" in typed:
        changes["train"] = {"epochs": typed["epochs"], **changes["train"]}
    if "protocol" in typed:
        changes["retrain"] = {"protocol": typed["protocol"], **changes["retrain"]}
    if "evaluations" in typed:
        changes["score"] = {**changes["score"], "evaluations": typed["evaluations"]}
    changes["run"] = given_run(typed)
    methods = _listed(typed.get("methods")) or (before.methods if before else ())
    if not methods:
        raise UserError("Say which methods to compare, as in: --methods darts,drnas,random")
    own = {name: {**recipe.methods.get(name, {}), **table(typed, f"methods.{name}")} for name in methods}
    recipe = recipe.over(**changes, methods={name: given for name, given in own.items() if given})
    seeds = _seeds(typed["seeds"]) if "seeds" in typed else before.seeds if before else SEEDS
    data = _listed(typed.get("data")) or (tuple(d for d in before.data if d) if before else ())
    asked = {
        "baseline": typed.get("baseline") or (before.baseline if before and before.baseline in methods else None),
        "table": typed.get("table") or (before.table or None if before else None),
        "columns": _listed(typed.get("column")) or (before.columns if before else ()),
        "retrain": typed.get("retrain", (before.retrain if before else False) or bool(changes["retrain"])),
    }
    if "column" in typed and asked["table"] is None:
        raise UserError("--column is a column of a benchmark table; give the table, too: --table PATH.")
    if folder is not None and typed.get("out") not in (None, folder):
        raise UserError(f"{folder} is a comparison to go on with: leave --out out, or give a recipe and not a folder.")
    out = folder or typed.get("out") or Path(f"runs/{Path(recipe.space['name']).stem}-comparison")
    with WatchJobs() as watch:
        compared = compare(
            recipe,
            methods=methods,
            seeds=seeds,
            data=data,
            **asked,
            out=out,
            jobs=typed.get("jobs", 1),
            ray=typed.get("ray"),
            gpus=typed.get("gpus", 0.0),
            planned=watch.planned,
            told=watch.told,
        )
    tell(compared)
    if typed.get("json"):
        print_json(compared.summary())
    if compared.failed:
        raise UserError(
            f"{len(compared.failed)} of {len(compared.came)} runs did not come to their end "
            f"({', '.join(compared.failed)}); the logs are in {compared.folder.path / 'logs'}. "
            f"Try them again with: gapless compare {compared.folder.path}"
        )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _listed(text))
    except ValueError:
        raise UserError(f"--seeds is {text!r}; it takes whole numbers with commas, as 0,1,2.") from None


def tell(compared: Compared) -> None:
    """Say what a comparison came to."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print("\n" + markdown(compared.report).partition("\n\n")[2].rstrip())
    console.print(f"\nWritten: {', '.join(map(str, compared.files.values()))}")
