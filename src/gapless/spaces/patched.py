"""A user's own model as a space: submodules that may be swapped for others, pretrained weights kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import nn

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

    def build(self, choose: Choose) -> nn.Module:
        """Return a copy of the model with the chosen options in their places."""
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


SPACE = Patched
