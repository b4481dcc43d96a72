"""A user's own model as a space: submodules that may be swapped for others, pretrained weights kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gapless.core.choose import Choose
from gapless.core.decision import Decision
from gapless.core.errors import UserError, nearest
from gapless.core.space import Space

Option = nn.Module | Callable[[nn.Module], nn.Module] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Patched(Space):
    """The space of a model some of whose submodules have alternatives.

    Parameters
    ----------
    model
        Maps images to logits. It is copied, never changed.
    swaps
        Path of a submodule -> {label: option}. An option is a module, a function of the original submodule that returns
        one, or None for the original itself. Every option must map the same input to the same shape.

    Raises
    ------
    UserError
        Where the model has no submodule of that path.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    >>> space = Patched(model=model, swaps={"0": {"same": None, "point": nn.Conv2d(3, 4, 1)}})
    >>> space.count
    2
    """

    source: ClassVar[str] = "a model of your own"
    label: ClassVar[str] = "patched"
    python_only: ClassVar[str] = "a model and its swaps"
    model: nn.Module
    swaps: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        paths = [name for name, _ in self.model.named_modules() if name]
        for path in self.swaps:
            if path not in paths:
                raise UserError(f"The model has no submodule {path!r}.{nearest(path, paths)}")
            self._check_own(path)
        if not self.swaps:
            raise UserError("A patched model needs at least one submodule with alternatives.")

    def _check_own(self, path: str) -> None:
        """Raise a :class:`UserError` where a submodule is, or shares weights with, another part of the model, or holds
        another submodule that is swapped: an option could not take its place alone."""
        swapped = self.model.get_submodule(path)
        inside = {id(module) for module in swapped.modules()}
        own = {id(weight): name for name, weight in swapped.named_parameters()}
        for name, module in self.model.named_modules(remove_duplicate=False):
            if module is swapped and name != path:
                raise UserError(
                    f"The submodule {path!r} is also {name!r}: one module under two names, so an option cannot take "
                    "the place of one. Give the model a copy for each, or leave it out of the swaps."
                )
            if id(module) not in inside:
                for weight_name, weight in module.named_parameters(recurse=False):
                    if id(weight) in own:
                        raise UserError(
                            f"The submodule {path!r} shares its {own[id(weight)]!r} with {name or 'the model'!r} "
                            f"({weight_name!r}): a copy of it would not. Untie them, or leave it out of the swaps."
                        )
        around = [other for other in self.swaps if path.startswith(f"{other}.")]
        if around:
            raise UserError(
                f"The submodule {path!r} lies inside {around[0]!r}, which is swapped, too. Swap one of them, or give "
                "the outer one options that hold the inner ones."
            )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """One per patched submodule, in the order given."""
        return tuple(Decision(path, tuple(options)) for path, options in self.swaps.items())

    @cached_property
    def tried(self) -> bool:
        """True, once the model and each option have run on two images.

        Raises
        ------
        UserError
            Where one of them does not run, or gives something else than is needed: it is named.
        """
        weights = list(self.model.parameters())
        if any(isinstance(weight, UninitializedParameter) for weight in weights):
            raise UserError("The model has lazy modules without shapes. Run it once on an image before it is searched.")
        odd = {str(w.dtype).removeprefix("torch.") for w in weights if w.is_floating_point()} - {"float32"}
        if odd:
            raise UserError(
                f"The model has weights in {min(odd)}; a search keeps them in float32 and computes as `precision` "
                "says. Give model.float()."
            )
        if any(isinstance(module, torch.jit.ScriptModule) for module in self.model.modules()):
            raise UserError(
                "The model holds modules of TorchScript, which cannot be copied apart. Give it as it was before."
            )
        device = weights[0].device if weights else torch.device("cpu")  # its code may name the one that it is on
        with (
            torch.device(device),
            torch.no_grad(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            model = copy.deepcopy(self.model).eval()
            seen = {path: _recorded(model.get_submodule(path)) for path in self.swaps}
            images = torch.zeros(2, *self.image_shape, device=device)
            logits = _ran(f"The model cannot run on images of {' x '.join(map(str, self.image_shape))}", model, images)
            if not isinstance(logits, Tensor) or logits.shape != (2, self.classes):
                raise UserError(
                    f"The model gives {_what(logits)} for two images; the search needs logits [2, {self.classes}], one "
                    "for each class. Give the model a head for the classes, or set `classes`.",
                    of="space",
                )
            if not all(seen.values()):
                _ran("The model cannot run in training mode", model.train(), images)
            for path, calls in seen.items():
                self._try_options(path, calls, device)
        return True

    def _try_options(self, path: str, calls: list[Any], device: torch.device) -> None:
        if not calls:
            raise UserError(
                f"The submodule {path!r} does not run in a pass of the model: an option would change nothing."
            )
        for given, named, result in calls:
            if named or len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(result, Tensor):
                raise UserError(
                    f"The submodule {path!r} takes {_what((*given, *named.values()))} and gives {_what(result)}; an "
                    "option takes one tensor and gives one. Wrap it in a module that does, and swap that."
                )
        for label in self.swaps[path]:
            option = self._maker(path, self.swaps[path])(label).to(device).eval()
            for (x,), _, result in calls:
                found = _ran(f"The option {label!r} of {path!r} cannot run", option, x)
                if not isinstance(found, Tensor) or found.shape != result.shape:
                    raise UserError(
                        f"The option {label!r} of {path!r} gives {_what(found)}, and what it replaces {_what(result)}. "
                        "Every option must give the same shape."
                    )

    def build(self, choose: Choose) -> nn.Module:
        """Return a copy of the model with the chosen options in their places."""
        assert self.tried
        model = copy.deepcopy(self.model)
        for path, options in self.swaps.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, choose.op(path, self._maker(path, options)))
        return model

    def _maker(self, path: str, options: Mapping[str, Option]) -> Callable[[str], nn.Module]:
        def make(label: str) -> nn.Module:
            original = copy.deepcopy(self.model.get_submodule(path))
            option = options[label]
            if option is None:
                return original
            return copy.deepcopy(option) if isinstance(option, nn.Module) else option(original)

        return make


def _recorded(module: nn.Module) -> list[Any]:
    """Return a list that takes arguments, keywords and result of every forward pass of a module from now on, also of
    those that do not go through ``__call__``."""
    calls: list[Any] = []
    forward = module.forward

    def recording(*given: Any, **named: Any) -> Any:
        result = forward(*given, **named)
        calls.append((given, named, result))
        return result

    module.forward = recording
    return calls


def _ran(what: str, module: nn.Module, x: Tensor) -> Any:
    try:
        return module(x)
    except Exception as error:  # it is the user's code: it may raise anything
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{what}: {type(error).__name__}: {said}.") from None


def _what(value: Any) -> str:
    """Return what a value is, in few words."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, tuple | list):
        return _what(value[0]) if len(value) == 1 else f"{len(value)} values"
    return f"a value of type {type(value).__name__}"


SPACE = Patched
