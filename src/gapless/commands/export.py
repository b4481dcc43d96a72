"""``gapless export``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapless.commands.evaluate import space_of
from gapless.commands.options import TRUST, Option, bind, print_json, settings, table
from gapless.studies.defaults import FORMATS

DOC = """Write a network as files that need no Gapless.

`py` is one readable file of plain PyTorch with its weights, `onnx` a file for ONNX runtimes, `torch` a program of
`torch.export`. The run of a training gives the trained network. A search, or an architecture in any notation, gives it
with random weights at the size at which the paper trains it alone, unless options such as `--space.cells 20` say
otherwise; `--inherit` gives the weights of a search's supernet.

Examples: `gapless export runs/my-training --format py,onnx`, `gapless export DARTS_V2 --space.classes 37`."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space."""
    space = space_of(arguments)
    options = [
        Option("format", list[str], f"One or several of {', '.join(FORMATS)}, as in --format py,onnx.", default="py"),
        Option("out", Path, "The folder to write.", default="exports/NAME"),
        Option("inherit", bool, "Take the weights of a search's supernet, at the size of the search."),
        Option("space", str, "The space of the architecture; by default that of the run, or the one that can read it."),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
    ]
    if space is not None and not space.python_only:
        full = space.alone()
        shown = {name: getattr(full, name) for name in full.__dataclass_fields__}
        options += settings("space", type(space), f"Space {space.label}", shown)
    return bind(_run, [("network", str, "A run folder or an architecture.", True)], options)


def _run(given: str, typed: Mapping[str, Any]) -> None:
    from gapless.studies.export import export

    formats = [word.strip() for word in ",".join(typed.get("format", ["py"])).split(",") if word.strip()]
    found = export(
        given,
        formats=formats,
        out=typed.get("out"),
        space=typed.get("space"),
        fields=table(typed, "space"),
        inherit=bool(typed.get("inherit")),
    )
    facts = found.summary()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if facts["warning"]:
        console.print(facts["warning"], style="bold red")
    console.print(f"{facts['space']}: {facts['notation']}")
    console.print(f"  {facts['params']:,} parameters, {facts['macs']:,} MACs")
    if facts["accuracy"] is not None:
        console.print(f"  test accuracy {facts['accuracy']:.2f} % on {facts['tested_on']}")
    for name, difference in facts["differences"].items():
        exact = "the same logits, bit for bit" if not difference else f"logits differ by at most {difference:.1e}"
        console.print(f"  {name}: {exact}, when read back")
    console.print(f"Written to {found.path}: {', '.join([*facts['files'], 'model.json'])}")
    if typed.get("json"):
        print_json(facts)
