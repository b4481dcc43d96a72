"""``gapless search``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapless.commands.options import TRUST, Option, bind, given_run, peek, print_json, run_settings, settings, table
from gapless.commands.out import into, trust_of
from gapless.commands.watch import WatchSearch
from gapless.core import catalogue
from gapless.core.bound import EXAMPLES, Bound, told
from gapless.core.errors import TABLES, UserError
from gapless.core.files import whole
from gapless.core.method import Method
from gapless.core.plan import Train
from gapless.core.settings import Epochs, Natural, NonNegative, fields_of
from gapless.core.text import quoted
from gapless.data import load
from gapless.runs.checked import LimitSettings, check_recipe, completed
from gapless.runs.recipe import MEASURED, Recipe
from gapless.studies.results import SearchResult
from gapless.studies.search import search

DOC = """Search for an architecture and print it, its size, where the run lies and what to type next.

Without a recipe, a space or a method this is the demonstration: DrNAS on NAS-Bench-201 with the bundled digits.
The options listed below are those of the space, the method and the score chosen by `--space`, `--method` and `--score`.
A black-box search (`random`, `regularized_evolution`, `local_search`, `evolution`) goes by a score.

Examples: `gapless search`, `gapless search --space darts --method dropnas --data digits --epochs 10 --space.width 8`,
`gapless search my_recipe.toml --seed 3`,
`gapless search --method regularized_evolution --score table --score.file accuracy.parquet --evaluations 100`."""
DEFAULT = {"space": {"name": "nasbench201"}, "method": {"name": "drnas"}, "data": {"name": "digits"}}


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space and the method that they name."""
    recipe = _base(arguments)
    checked = check_recipe(recipe)
    assert checked.method is not None
    space, method, score = checked.space, checked.method, checked.score
    train = {name: getattr(checked.train, name) for name in fields_of(Train)}
    limit = fields_of(LimitSettings)
    options = [
        Option(
            "space", str, "Where to search: a space of `gapless list spaces`, or a file.", default=recipe.space["name"]
        ),
        Option("method", str, "How: a method of `gapless list methods`, or a file.", default=recipe.method["name"]),
        Option(
            "data",
            str,
            "`digits`, a folder of images or Parquet files, or a name on the Hugging Face hub.",
            default=recipe.data.get("name"),
        ),
        Option(
            "score",
            str,
            "What a black-box search goes by: a score of `gapless list scores`, or a file.",
            default=recipe.score.get("name"),
        ),
        Option(
            "evaluations",
            Natural,
            "How many architectures a black-box search has scored.",
            default=recipe.score.get("evaluations", getattr(method.cls, "usual", None)),
        ),
        Option(
            "epochs",
            Epochs,
            "Short for --train.epochs.",
            default=train["epochs"] if issubclass(method.cls, Method) else None,
        ),
        *run_settings(recipe.run),
        Option(
            "limit", list[str], f"The most that the answer may cost: {', '.join(EXAMPLES.values())}; may be repeated."
        ),
        Option("limit_strength", NonNegative, limit["strength"].help, default=checked.limit.strength),
        Option("latency_file", Path, limit["latency_file"].help),
        Option("out", Path, "Folder of the run.", default="runs/SPACE-METHOD-DATA-seedN, or -SCORE-"),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
        *settings("space", space.cls, f"Space {space.name}", space.settings, skip=MEASURED),
        *settings("method", method.cls, f"Method {method.name}", method.settings, skip=("seed",)),
        *([] if score is None else settings("score", score.cls, f"Score {score.name}", score.settings)),
        *settings("train", Train, "Training", train),
        *settings("data", load, "Data", recipe.data),
    ]

    def body(given: str | None, typed: Mapping[str, Any]) -> None:
        if given != _recipe(arguments):
            raise UserError(f"Put the recipe first: gapless search {given} --option ...")
        _run(recipe, typed)

    return bind(body, [("recipe", str, "A recipe: a TOML file, or one of `gapless list recipes`.", False)], options)


def _base(arguments: Sequence[str]) -> Recipe:
    """Return the recipe that the options are laid over: the one named, the demo, or the paper's settings of what is
    named."""
    given = _recipe(arguments)
    named = {t: {"name": n} for t in ("space", "method", "data", "score") if (n := peek(arguments, t)) is not None}
    if given is not None:
        base = Recipe.read(given)
    else:
        base = Recipe() if named.keys() - {"data"} else Recipe.read("demo")
    base = base.over(**named)
    if base.score:
        base = _scored(base, arguments)
    rest = {t: v for t, v in DEFAULT.items() if not getattr(base, t) and not (t == "data" and base.score)}
    return base.over(**rest)


def _scored(recipe: Recipe, arguments: Sequence[str]) -> Recipe:
    """Return a recipe with the space that its score settles, where nobody names one."""
    legal = fields_of(catalogue.find(recipe.score["name"], "scores")) if "name" in recipe.score else {}
    typed = {name: value for name in legal if (value := peek(arguments, f"score.{name}")) is not None}
    settled = completed(recipe.over(score=typed))
    return recipe.over(space=settled.space) if settled.space and not recipe.space else recipe


def _recipe(arguments: Sequence[str]) -> str | None:
    """Return the recipe typed right behind the command: only there can it be told from the value of an option."""
    return arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else None


def _run(recipe: Recipe, typed: Mapping[str, Any]) -> None:
    changes = {name: table(typed, name) for name in TABLES if name not in ("run", "limit")}
    if "epochs" in typed:
        changes["train"] = {"epochs": typed["epochs"], **changes["train"]}
    changes["run"] = given_run(typed)
    if "evaluations" in typed:
        changes["score"] = {**changes["score"], "evaluations": typed["evaluations"]}
    changes["limit"] = _limit(typed)
    recipe = recipe.over(**changes)
    seed = recipe.run.get("seed", 0)
    by = recipe.score.get("name") or recipe.data.get("name", "digits")
    stem = f"{Path(recipe.space['name']).stem}-{Path(recipe.method['name']).stem}-{Path(by).stem}-seed{seed}"
    with WatchSearch() as watch:
        result = into(typed.get("out"), f"runs/{stem}", lambda out: search(recipe, out=out, on_progress=watch))
    tell(result)
    if typed.get("json"):
        print_json(result.summary())


def _limit(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table ``[limit]`` of what was typed."""
    bounds = [Bound.parse(text) for text in typed.get("limit", ())]
    for bound in bounds:
        if sum(other.unit == bound.unit for other in bounds) > 1:
            raise UserError(f"--limit is given twice for {bound.unit}; give one.")
    limit: dict[str, Any] = {bound.unit: str(bound).partition("=")[2] for bound in bounds}
    if "limit_strength" in typed:
        limit["strength"] = typed["limit_strength"]
    if "latency_file" in typed:
        limit["latency_file"] = str(whole(typed["latency_file"]))
    return limit


def tell(result: SearchResult) -> None:
    """Say what a search found, and what to type next."""
    console, facts = Console(highlight=False, soft_wrap=True, markup=False), result.summary()
    console.print(f"\nFound in {facts['seconds']:.0f} s:\n  {facts['notation']}")
    console.print(
        f"  {facts['params']:,} parameters and {facts['macs']:,} MACs at the size at which it would be trained "
        + ("alone" if result.start == "fresh" else "on, with the weights of this search")
    )
    if result.judged is not None:
        judged = result.judged
        console.print(
            f"  Best of {judged['archs']:,} architectures that the supernet judged in {judged['seconds']:.0f} s: "
            f"{judged['accuracy']:.1f} % of {judged['images']:,} {judged['on']}, with its weights"
        )
    for bound in result.limits:
        console.print(f"  Limit {Bound(bound.unit, bound.most)}: {told(bound.cost, bound.unit)}")  # type: ignore[arg-type]
    if result.score is not None:
        score = result.score
        console.print(
            f"  {score['title']}: {score['value']:.2f} {score['unit']}".rstrip()
            + f", the best of {score['evaluations']:,} evaluations ({score['architectures']:,} architectures)"
        )
        if score["notice"]:
            console.print(f"  {score['notice']}")
    if result.run is not None:
        console.print(f"Run folder: {result.run.path} (the drawn cell: {result.run.path / 'cell.svg'})")
        images = "" if result.score is None or result.run.recipe().data.get("name") else " --data IMAGES"
        console.print(f"Next: gapless retrain {quoted(result.run.path)}{images}{trust_of(result.run)}")
