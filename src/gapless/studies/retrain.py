"""The training of an architecture alone, from a run or a text to its accuracy on the test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.settings import fields_of, typed
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.engine.retrain import Training, TrainingRecord
from gapless.report.show import show
from gapless.runs.checkpoint import held
from gapless.runs.recipe import Recipe, absolute
from gapless.runs.retraining import Retraining, resolve
from gapless.runs.run import Run
from gapless.runs.searched import going_on, trained
from gapless.studies.evaluate import locate
from gapless.studies.session import begin, device_of, go, restore, use_threads


class Watcher(Protocol):
    """What is told of a training under way."""

    def started(self, resolved: Retraining, run: Run | None, notice: str) -> None:
        """Everything is set up; a notice says what is unusual, if anything."""
        ...

    def told(self, record: TrainingRecord) -> None:
        """An epoch is over."""
        ...


KEPT = ("name", "size", "test_images", "label", "image", "pad", "flip")
"""Settings of a search's data that its retraining takes over: it trains on all training images, and how they are varied
is the protocol's."""


ALONG = {"aux_weight": 0.0, "drop_path": 0.0}
"""Settings of a training that goes on from a supernet, where nobody says otherwise: it had neither."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size at which it was trained.
    run
        The run folder, or None where none was asked for.
    record
        The last epoch's: its test accuracy is the one to report.
    images
        Test images behind that accuracy.
    seconds
        Of all epochs.
    """

    arch: Arch
    space: Space
    run: Run | None
    record: Mapping[str, Any]
    images: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Percent of the test images that are classified rightly after the last epoch."""
        return float(self.record["test_accuracy"])

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        low, high = interval(self.accuracy / 100, self.images)
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **size_of(self.space, self.arch),
            "test_accuracy": self.accuracy,
            "test_images": self.images,
            "interval_95": [100 * low, 100 * high],
            "test_loss": self.record["test_loss"],
            "epochs": self.record["epoch"] + 1,
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.record["peak_memory_mb"], 1),
        }


def interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` independent images (Wilson, 1927).

    >>> [round(x, 4) for x in interval(0.5, 100)]
    [0.4038, 0.5962]
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


def retrain(
    given: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    watcher: Watcher | Callable[[TrainingRecord], None] | None = None,
) -> Trained:
    """Train an architecture alone and test it after the last epoch.

    Parameters
    ----------
    given
        A run folder, or an architecture in any notation.
    data
        ``name`` of the images and settings of :func:`gapless.data.load`; by default those of the run.
    space, fields
        Name of the space, and fields that differ from the size at which the paper trains alone.
    protocol
        Name of a ``protocol`` and settings that differ from it (:class:`gapless.core.protocol.Protocol`); by default
        that of the run's recipe, or the space's own. ``start``: ``fresh`` weights, or those ``inherited`` from the run;
        by default as its method says.
    run
        ``seed``, ``device``, ``threads``, ``precision``, ``save_every``.
    out
        Folder of the run; None writes nothing.
    watcher
        Called with the record of each epoch; or an object with ``started`` and ``told``, which hears of the beginning,
        too.

    Raises
    ------
    UserError
        For anything wrong with what was given; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    recipe = plan(given, data=data, space=space, fields=fields, protocol=protocol, run=run)
    device_of(recipe.run.get("device", "auto"))
    if out is not None:
        Run.check_free(out)
    resolved = resolve(recipe)
    use_threads(resolved.run["threads"])
    loop = _loop(resolved)
    return _train(resolved, loop, begin(out, resolved.full().toml()), "", watcher)


def plan(
    given: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of a training (see :func:`retrain`), before any data is read."""
    arch, own, source = locate(given, space, fields)
    base = Recipe(space={"name": space or own.label})
    if source is not None:
        base = source.recipe()
        own_data = dict(base.data) if source.kind == "retrain" else {k: v for k, v in base.data.items() if k in KEPT}
        base = Recipe(space={"name": base.space["name"]}, retrain=base.retrain, data=own_data, run=base.run)
    start, at_start = _start(source, own, base, protocol or {})
    tables = {"data": data or {}, "run": run or {}}
    changed = {"protocol", *(protocol or {})} if protocol and "protocol" in protocol else set()
    settings = {**({} if changed else base.retrain), **(protocol or {})}
    given_fields = typed(type(own), {**base.retrain.get("space", {}), **(fields or {})}, of="space")
    if source is not None and source.kind == "retrain":
        size = own
    elif at_start is not None:
        if fields:
            raise UserError(
                f"--space.{next(iter(fields))} cannot be changed: training goes on from the weights of {given}, "
                "which are of one size. Leave it out, or type --start fresh."
            )
        size, settings = at_start, {**settings, **ALONG, **(protocol or {}), **start}
        given_fields = {}  # the recipe's are of a network that starts afresh, and so are its head and its drop path
    else:
        size = own.alone()
    size = size.replace(**given_fields)
    recipe = Recipe(arch=str(arch), space=base.space, retrain=settings, data=base.data, run=base.run).over(**tables)
    if "name" not in recipe.data:
        raise UserError("Say which images to train on: --data digits, a folder, or a name on the Hugging Face hub.")
    asked = recipe.protocol(size.protocol)
    legal = fields_of(type(own))
    parts = {"auxiliary": asked.aux_weight > 0, "drop_path": asked.drop_path > 0}
    size = size.replace(**{k: v for k, v in parts.items() if k in legal and k not in given_fields})
    written = {k: getattr(size, k) for k in legal if k not in ("classes", "channels", "size")}
    recipe = recipe.over(space=written)
    recipe.check()
    return recipe


def _start(
    source: Run | None, own: Space, base: Recipe, protocol: Mapping[str, Any]
) -> tuple[dict[str, Any], Space | None]:
    """Return settings that say from which weights the training starts, and the size of these weights; an empty table
    and None where they are fresh."""
    asked = Recipe(retrain={**base.retrain, **protocol}).start()
    if source is None or source.kind == "retrain" or asked == "fresh":
        if asked == "inherited" and source is None:
            raise UserError("--start inherited goes on from the weights of a search: give its run folder.")
        return {}, None
    size = going_on(source.recipe(), own, asked)
    if size is None:
        return {}, None
    trained(source.path)
    return {"start": "inherited", "weights": absolute(str(source.path))}, size


def resume(run: Run, watcher: Watcher | Callable[[TrainingRecord], None] | None = None) -> Trained:
    """Go on with a training from its last checkpoint, or from its beginning where there is none yet.

    Raises
    ------
    UserError
        Where it cannot go on; nothing is changed then.
    """
    recipe = run.recipe()
    device_of(recipe.run.get("device", "auto"))
    resolved = resolve(recipe)
    use_threads(resolved.run["threads"])
    loop = _loop(resolved)
    with held(run):
        notice = restore(loop, run, resolved.data.fingerprint)
    return _train(resolved, loop, run, notice, watcher)


def finished(run: Run) -> Trained:
    """Return what a training that has ended came to."""
    arch, space = run.found()
    records = list(run.trace())
    return Trained(arch, space, run, records[-1], run.result()["test_images"], sum(r["seconds"] for r in records))


def _train(
    resolved: Retraining,
    loop: Training,
    run: Run | None,
    notice: str,
    watcher: Watcher | Callable[[TrainingRecord], None] | None,
) -> Trained:
    if watcher is not None and not callable(watcher):
        watcher.started(resolved, run, notice)
    told = watcher if watcher is None or callable(watcher) else watcher.told
    records = [] if run is None else list(run.trace())
    images, minutes = resolved.data.fingerprint, resolved.run["save_every"]
    records += [record.line() for record in go(loop, run, images=images, minutes=minutes, told=told)]
    spent = sum(record["seconds"] for record in records)
    trained = Trained(resolved.arch, resolved.space, run, records[-1], len(resolved.data.test), spent)
    if run is not None:
        run.write_weights(loop.weights())
        show(resolved.arch, resolved.space, run.path / "cell.svg")
        run.write_arch(resolved.arch, resolved.space, resolved.recipe.space["name"], resolved.data)
        run.write_json("result.json", trained.summary())  # last: with it the run has ended
    return trained


def _loop(resolved: Retraining) -> Training:
    run = resolved.run
    return Training(
        resolved.network,
        resolved.data,
        resolved.protocol,
        seed=run["seed"],
        device=device_of(run["device"]),
        precision=run["precision"],
    )
