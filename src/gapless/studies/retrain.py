"""The training of an architecture alone, from a run or a text to its accuracy on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapless.core.errors import Untrusted, UserError
from gapless.core.settings import fields_of, typed
from gapless.core.space import Space
from gapless.engine.retrain import Training
from gapless.runs.checked import RetrainSettings, check_recipe
from gapless.runs.recipe import Recipe, absolute
from gapless.runs.recorded import RecordedSpace
from gapless.runs.resolved import ResolvedTraining
from gapless.runs.run import Run
from gapless.runs.searched import continued_size, starting_network, trained
from gapless.studies import pipeline
from gapless.studies.device import device_of
from gapless.studies.evaluate import locate
from gapless.studies.pipeline import Answer, Callback, OnProgress
from gapless.studies.results import TrainingResult

KEPT = ("name", "size", "test_images", "label", "image", "test_split", "pad", "flip")
"""Settings of a search's data that its retraining takes over: it trains on all training images, and how they are varied
is the protocol's."""
ALONG = {"aux_weight": 0.0, "drop_path": 0.0}
"""Settings of a training that continues from a supernet, unless changed: the supernet had neither."""


def retrain(
    given: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress = None,
) -> TrainingResult:
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
    on_progress
        Called with the record of each epoch; or a :class:`gapless.studies.pipeline.Callback`.

    Raises
    ------
    UserError
        For anything wrong with the arguments; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    recipe = plan(given, data=data, space=space, fields=fields, protocol=protocol, run=run)
    return train(recipe, out=out, on_progress=on_progress)


def train(recipe: Recipe, *, out: str | Path | None = None, on_progress: OnProgress = None) -> TrainingResult:
    """Train the architecture of a recipe alone (see :func:`retrain`)."""
    return pipeline.start(recipe, ArchTraining, out=out, on_progress=on_progress)


def plan(
    given: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of a training (see :func:`retrain`); no data is read."""
    arch, own, source = locate(given, space, fields)
    base = Recipe(space={"name": space or own.label})
    if source is not None:
        base = source.recipe()
        own_data = dict(base.data) if source.kind == "retrain" else {k: v for k, v in base.data.items() if k in KEPT}
        base = Recipe(
            space={"name": base.space["name"]},
            retrain=base.retrain,
            data=own_data,
            run=base.run,
            outside=base.outside,
            strangers=base.strangers,
        )
    if isinstance(own, RecordedSpace):
        raise Untrusted(own.refusal)
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
                f"`{next(iter(fields))}` cannot be changed: training starts from the weights of {given}, which are of "
                "one size. Leave it out, or set `retrain.start` to fresh.",
                of="space",
            )
        size, settings = at_start, {**settings, **ALONG, **(protocol or {}), **start}
        given_fields = {}  # the recipe's are of a network that starts afresh, and so are its head and its drop path
    else:
        size = own.alone()
    size = size.replace(**given_fields)
    recipe = Recipe(arch=str(arch), space=base.space, retrain=settings, data=base.data, run=base.run).over(**tables)
    if "name" not in recipe.data:
        raise UserError("No images to train on. Set `data` to digits, a folder, or a name on the Hugging Face hub.")
    chosen = RetrainSettings.of(recipe).on(size.protocol)
    legal = fields_of(type(own))
    parts = {"auxiliary": chosen.aux_weight > 0, "drop_path": chosen.drop_path > 0}
    size = size.replace(**{k: v for k, v in parts.items() if k in legal and k not in given_fields})
    written = {k: getattr(size, k) for k in legal if k not in ("classes", "channels", "size")}
    return recipe.over(space=written)


def _start(
    source: Run | None, own: Space, base: Recipe, protocol: Mapping[str, Any]
) -> tuple[dict[str, Any], Space | None]:
    """Return settings that say from which weights the training starts, and the size of these weights; an empty table
    and None where they are fresh."""
    start = RetrainSettings.of(Recipe(retrain={**base.retrain, **protocol})).start
    if source is None or source.kind == "retrain" or start == "fresh":
        if start == "inherited" and source is None:
            raise UserError(
                "`start` is inherited, the weights of a search: give its run folder, not an architecture.", of="retrain"
            )
        return {}, None
    if (start or source.alone()["start"]) == "fresh":
        return {}, None  # and so no code of a method is needed
    size = continued_size(check_recipe(source.recipe()), own, start)
    if size is None:
        return {}, None
    trained(source.path)
    return {"start": "inherited", "weights": absolute(str(source.path))}, size


class ArchTraining:
    """The task of a training."""

    pause = 0.0
    notice = ""
    summary_file = "result.json"

    def __init__(self, resolved: ResolvedTraining, run: Run | None) -> None:
        settings = resolved.run
        self.resolved = resolved
        self.fingerprint = resolved.data.fingerprint
        self.loop = Training(
            lambda: starting_network(resolved),
            resolved.data,
            resolved.protocol,
            seed=settings.seed,
            device=device_of(settings.device),
            precision=settings.precision,
        )

    def prepare(self, run: Run) -> None:
        """Write nothing more."""

    def answer(self, callback: Callback) -> Answer:
        """Return the architecture with its trained weights."""
        resolved = self.resolved
        return Answer(resolved.arch, resolved.space, resolved.data, weights=self.loop.weights())

    def result(self, answer: Answer, run: Run | None, seconds: float, last: Mapping[str, Any]) -> TrainingResult:
        """Return the result."""
        data = self.resolved.data
        return TrainingResult(answer.arch, answer.space, run, last, len(data.test), data.tested, seconds)
