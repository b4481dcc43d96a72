"""The published suite on every method of the folder and on variants: every law on the ragged space, and the laws that
search for one method of each coupling on a patched model, on NAS-Bench-201 and on DARTS.

The other pairs of a method and a space are the tier ``full``.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import get_args, get_type_hints

import pytest

from gapless.core import catalogue
from gapless.core.plan import Plan
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS
from gapless.methods.dropnas import DropNAS
from gapless.methods.dsnas import DSNAS
from gapless.methods.enas import ENAS
from gapless.methods.fairnas import FairNAS
from gapless.methods.gdas import GDAS
from gapless.methods.snas import SNAS
from gapless.methods.spos import SPOS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import title
from gapless.testing.examples import Paths, Ragged, Softmax, patched
from gapless.testing.methods import (
    RECORDED_LAWS,
    SEARCH_LAWS,
    STILL_LAWS,
    Recording,
    a_search_is_a_function_of_the_seed,
    a_search_trains_it,
    narrowed,
    options_that_rest_are_untouched,
    record,
)

QUICK = {
    "enas": {"steps": 1, "samples": 2, "candidates": 4},
    "rsps": {"archs": 8, "finalists": 2},
    "spos": {"searcher": "random", "evaluations": 8},
    "fairnas": {"searcher": "random", "evaluations": 8},
}
"""Fewer candidates and samples than in the papers, for time."""
CATALOGUE = {
    name: partial(catalogue.find(name, "methods"), **QUICK.get(name, {})) for name in catalogue.names("methods")
}
OFTEN = partial(DropNAS, rate_weights=0.2, rate_free=0.2, warmup=1)
METHODS = {
    **CATALOGUE,
    "darts-unrolled": partial(DARTS, unrolled=True),
    "darts-unrolled-faithful": partial(DARTS, unrolled=True, faithful=True),
    "drnas-kl-faithful": partial(DrNAS, regulariser="kl", read="mean", faithful=True),
    "drnas-progressive": partial(DrNAS, progressive=True, warmup=0),
    "dropnas-often": OFTEN,
    "dropnas-often-faithful": partial(DropNAS, rate_weights=0.2, rate_free=0.1, faithful=True),
    "gdas-scalar-fill": partial(GDAS, estimator="scalar_fill"),
    "gdas-full": partial(GDAS, estimator="full"),
    "snas-bilevel-resource": partial(SNAS, bilevel=True, resource=1e-2, resource_scale="raw"),
    "snas-policy-gradient": partial(SNAS, resource=1e-3, resource_estimator="policy_gradient"),
    "dsnas-macs-coast": partial(DSNAS, macs=1e-2, macs_from=0.0, inactive="coast", freeze=0.02),
    "enas-per-epoch": partial(
        ENAS, steps=1, samples=2, candidates=4, baseline="per_epoch_last", entropy_grad=True, arch_clip=0.0
    ),
    "fairnas-own-batches": partial(FairNAS, batches="own", gradients="mean", searcher="random", evaluations=4),
    "fairnas-step-by-step": partial(FairNAS, accumulate=False, searcher="random", evaluations=4),
    "spos-bins": partial(SPOS, macs_bins=(0.0, 0.1, 0.2), searcher="random", evaluations=4),
    "pruned-darts": narrowed(DARTS),
    "pruned-drnas": narrowed(DrNAS),
    "joint": partial(Softmax, plan=Plan(coupling="joint"), turns=2),
    "paths": Paths,
}
SPACES = {
    "ragged": Ragged(),
    "nasbench201": NASBench201(size=8, width=8, cells=1),
    "patched": patched(),
    "darts": Darts(size=8, width=4, cells=3, options="1-skip"),
    "darts-s1": Darts(size=8, width=4, cells=3, options="s1"),
    "darts-s4": Darts(size=8, width=4, cells=3, options="s4"),
    "darts-partial": Darts(size=8, width=4, cells=3, options="1-skip", partial=2),
}


COUPLINGS = {"alternate": "darts", "unrolled": "darts-unrolled", "joint": "dropnas-often", "weights_only": "spos"}
"""One method of each coupling."""
PLACES = [
    *((name, "ragged") for name in METHODS),
    *((name, "patched") for name in METHODS if name != "drnas-progressive"),  # it has no partial channels to widen
    *((name, "nasbench201") for name in (*CATALOGUE, *COUPLINGS.values(), "drnas-progressive")),
]
PLACES = list(dict.fromkeys(PLACES))


FORMULAS = {
    "darts-unrolled-faithful", "drnas-kl-faithful", "dropnas-often-faithful", "gdas-scalar-fill", "gdas-full",
    "snas-bilevel-resource", "snas-policy-gradient", "dsnas-macs-coast", "enas-per-epoch", "fairnas-own-batches",
    "fairnas-step-by-step", "spos-bins", "pruned-darts",
}  # fmt: skip
"""Variants that go the way of a method that is tried, by another formula."""


def tier(usual: Callable[[str, str], bool]) -> list[object]:
    """Return all places; those that are not usual are in the tier ``full``."""
    return [pytest.param(*place, marks=() if usual(*place) else pytest.mark.full) for place in PLACES]


@lru_cache(maxsize=1)
def recording(name: str, space: str) -> Recording:
    """Return the search that the laws of a place share; they run one after the other."""
    return record(METHODS[name], SPACES[space])


def test_one_method_of_each_coupling():
    plans = {coupling: METHODS[name](SPACES["nasbench201"]).plan.coupling for coupling, name in COUPLINGS.items()}
    assert plans == {coupling: coupling for coupling in get_args(get_type_hints(Plan)["coupling"])}


@pytest.mark.parametrize("law", STILL_LAWS, ids=title)
@pytest.mark.parametrize(("name", "space"), tier(lambda name, space: space == "ragged"))
def test_law_without_a_network(law, name, space):
    law(METHODS[name], SPACES[space])


@pytest.mark.full
@pytest.mark.parametrize("law", STILL_LAWS, ids=title)
@pytest.mark.parametrize("name", CATALOGUE)
def test_law_without_a_network_on_the_decisions_of_darts(law, name):
    law(METHODS[name], SPACES["darts"])


def in_default_tier(name: str, space: str) -> bool:
    """Every method searches on the ragged space, one of each coupling on the others."""
    return name in COUPLINGS.values() or (space == "ragged" and name not in FORMULAS)


@pytest.mark.parametrize("law", SEARCH_LAWS, ids=title)
@pytest.mark.parametrize(("name", "space"), tier(in_default_tier))
def test_law_of_a_search(law, name, space):
    law(METHODS[name], SPACES[space], *([recording(name, space)] if law in RECORDED_LAWS else []))


@pytest.mark.parametrize(
    ("law", "name", "space"),
    [
        (a_search_is_a_function_of_the_seed, "pruned-drnas", "darts-partial"),
        (options_that_rest_are_untouched, "dropnas-often", "darts"),
        *(
            pytest.param(*place, marks=pytest.mark.full)
            for place in (
                (a_search_trains_it, "darts", "darts"),
                (a_search_is_a_function_of_the_seed, "darts-unrolled", "darts-s4"),
                (a_search_is_a_function_of_the_seed, "dropnas-often", "darts-s1"),
                (options_that_rest_are_untouched, "dropnas-often", "darts-s4"),
            )
        ),
    ],
    ids=title,
)
def test_law_with_the_network_of_darts(law, name, space):
    law(METHODS[name], SPACES[space])
