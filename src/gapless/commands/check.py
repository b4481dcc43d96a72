"""``gapless check``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from gapless.commands.options import Option, bind, print_json, settings, table
from gapless.core.errors import UserError
from gapless.data import load

DOC = """Look at every image of a set and say what would be used of it.

Counts, classes, sizes, formats, unreadable files, duplicates across the splits, then what the network would see and
whether it fits the memory. The exit status is 0 where the set can be used and 2, after the report, where it cannot.

Example: `gapless check --data my_photos --data.size 64`."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    options = [
        Option("data", str, "A folder of images or Parquet files, a name on the Hugging Face hub, or `digits`."),
        Option("device", str, "Where the images would lie: auto, cpu, cuda ...", default="auto"),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        *settings("data", load, "Data"),
    ]
    return bind(_run, [], options)


def _run(typed: Mapping[str, Any]) -> None:
    from gapless.studies.check import check

    if "data" not in typed:
        raise UserError("Say which images to check: gapless check --data FOLDER.")
    report = check(typed["data"], device=typed.get("device", "auto"), **table(typed, "data"))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in lines(report):
        console.print(line)
    if typed.get("json"):
        print_json(report)
    if report["error"] is not None:
        raise UserError(report["error"], of="data")


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report as lines of text."""
    from gapless.studies.check import in_units

    told = []
    if report["found"] is not None:
        told += _found(report["found"])
    if report["used"] is not None:
        told += ["", "What would be used", *_used(report["used"])]
    if report["memory"] is not None and report["memory"]["bytes"]:
        memory = report["memory"]
        free = "an unknown amount" if memory["free"] is None else in_units(memory["free"])
        told.append(f"  memory: {in_units(memory['bytes'])} on {memory['device']}, which has {free} free")
    if report["usable"]:
        told += ["", "These images can be used."]
    return told


def _found(found: Mapping[str, Any]) -> list[str]:
    classes, train, test = found["classes"], found["train"], found["test"]
    split = found["test_split"] or "a stratified fifth, for there is no test split"
    told = [
        f"{found['name']}: {found['source']}",
        f"  {sum(train):,} training images and {sum(test):,} test images ({split}) in {len(classes):,} classes",
    ]
    for name, a, b in list(zip(classes, train, test, strict=True))[:LISTED]:
        told.append(f"    {name}: {a:,} + {b:,}")
    if len(classes) > LISTED:
        told.append(f"    and {len(classes) - LISTED:,} more classes")
    told.append(f"  the largest class has {found['imbalance']:.3g} times the training images of the smallest")
    if (sizes := found["sizes"]) is not None:
        a, b, c = ("{}x{}".format(*sizes[name]) for name in ("smallest", "median", "largest"))
        shape = "all square" if sizes["square"] else "not all square"
        told.append(f"  width x height: {a} to {c}, median {b}, different sizes: {sizes['distinct']:,}; {shape}")
    told += [f"  {kind}: {count:,} images ({done})" for kind, (count, done) in found["kinds"].items()]
    for names, text in (
        (found["few"], "with fewer than 2 images"),
        (found["absent"]["train"], "without a training image"),
        (found["absent"]["test"], "without a test image"),
    ):
        if names:
            told.append(f"  classes {text}: {_listed(names)}")
    for key, text in SOME.items():
        some = found[key]
        if some["count"]:
            told.append(f"  {text}: {some['count']:,}")
            told += [f"    {one}" for one in some["first"]]
            if some["count"] > len(some["first"]):
                told.append("    ...")
    if found["ignored_kinds"]:
        told.append("  ignored by suffix: " + ", ".join(f"{n:,} {kind}" for kind, n in found["ignored_kinds"].items()))
    if found["unused"]:
        told.append(f"  left out: {_listed(found['unused'])}")
    return told + [f"  problem: {problem}" for problem in found["problems"]]


def _used(used: Mapping[str, Any]) -> list[str]:
    size, stored = ("{1}x{0}".format(*used[name]) for name in ("size", "stored"))
    window = "" if size == stored else f", windows of stored {stored}"
    colours = "grey" if used["channels"] == 1 else "colour"
    mean, std = (" ".join(f"{x:.4f}" for x in used[name]) for name in ("mean", "std"))
    augment = [f"{name} {_plain(value)}" for name, value in used["augment"].items() if _plain(value) is not None]
    return [
        f"  {used['train']:,} training and {used['test']:,} test images in {used['classes']:,} classes",
        f"  the network sees {size} pixels{window}, {colours}",
        f"  mean {mean}, standard deviation {std}",
        f"  augmentation: {', '.join(augment) or 'none'}",
        f"  fingerprint: {used['fingerprint']}",
    ]


SOME = {
    "unreadable": "images that cannot be read",
    "leaked": "test images that are in the training split, too",
    "repeated": "training images that are there more than once",
    "contradicting": "those of them that have different labels",
    "ignored": "files ignored, for their names are not those of images",
}
"""What is counted and named in part -> what it is."""
LISTED = 20
"""So many classes are listed."""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _plain(value: Any) -> str | None:
    """Return a setting of the augmentation as typed, or None where it is off."""
    values = value if isinstance(value, list | tuple) else (value,)
    return " ".join("on" if one is True else str(one) for one in values) if any(values) else None
