"""Every law of the published suites has a space, a method or a search that breaks it, and the law says so."""

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision, Keep
from gapless.core.judge import Judge
from gapless.core.method import Method, Setting
from gapless.core.mix import Mix
from gapless.core.pick import Bench
from gapless.core.picture import Picture
from gapless.core.plan import Plan, Stage
from gapless.core.progress import Progress, stream
from gapless.core.searcher import Scored, Searcher
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable, Column
from gapless.engine.search import Search
from gapless.engine.step import Updater
from gapless.engine.supernet import MixedSite, Supernet
from gapless.kernels.cpu.records import SCALE, SHIFT
from gapless.kernels.cpu.walks import norm_forward, norm_grads
from gapless.kernels.plain import Normed, linear_backward
from gapless.searchers.random import Random
from gapless.spaces.insights64 import Insights64
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import (
    METHOD_LAWS,
    SCORE_LAWS,
    SEARCHER_LAWS,
    SPACE_LAWS,
    TABLE_LAWS,
    methods,
    scores,
    searchers,
    spaces,
    tables,
    title,
)
from gapless.testing.examples import Paths, Ragged, Softmax, patched

RAGGED = Ragged()


def breaks(law: Any, *given: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        law(*given)
    return str(caught.value)


# ---------------------------------------------------------------------- spaces


@dataclass(frozen=True, kw_only=True)
class Noisy(Ragged):
    """Runs something after the decisions that only training sees, or that no seed covers."""

    what: str = ""

    def build(self, choose: Choose) -> nn.Module:
        network = super().build(choose)
        supernet = type(choose).__name__ == "Everything"
        if self.what == "doubled" and supernet:
            network.register_forward_hook(lambda _m, _i, y: 2 * y)
        if self.what == "doubled-in-evaluation" and supernet:
            network.register_forward_hook(lambda m, _i, y: y if m.training else 2 * y)
        if self.what == "depends-on-statistics" and supernet:
            norm = network.stem[1]
            network.register_forward_hook(
                lambda _m, _i, y: y * (1 + norm.running_mean.abs().sum()) if norm.num_batches_tracked > 3 else y
            )
        if self.what == "gradient" and supernet:
            network.register_forward_hook(
                lambda _m, _i, y: y + (network.classifier.bias.sum() - network.classifier.bias.sum().detach())
            )
        if self.what == "own-weights" and not supernet:
            network.register_parameter("mine", nn.Parameter(torch.zeros(3)))
        if self.what == "unseeded":
            with torch.no_grad():
                network.classifier.weight.add_(
                    torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 2**31))
                )
        return network


class Loud(MixedSite):
    """A site that runs all of its options."""

    def forward(self, *inputs: Tensor) -> Tensor:
        for option in self.values():
            option(*inputs)
        return super().forward(*inputs)


class Odd(Ragged):
    """A ragged space whose derived parts can be overridden one by one."""


def space_with(**members: Any) -> Space:
    return type("Odd", (Odd,), members)()


def read_other(self: Space, given: object) -> Arch:
    return self.sample(torch.Generator().manual_seed(7))


def outside(self: Space, generator: torch.Generator) -> Arch:
    return Arch({"first": "pool"})


def twice(self: Space, arch: Arch) -> tuple[Arch, ...]:
    found = Ragged.neighbours(self, arch)
    return (*found, found[0])


def first_always(self: Space, scores: Tensor) -> Arch:
    return Ragged.decode(self, torch.zeros(self.shape))


def free(self: Space, unit: Any) -> tuple[Tensor, int]:
    table, constant = Ragged.cost_table(self, unit)
    return table, constant + 1


def backwards(self: Space, arch: Arch) -> tuple[Picture, ...]:
    return (Picture("", ("a", "b"), ((0, 1, "no such option"),)),)


def lenient(self: Space, arch: Arch) -> None:
    return


def other_questions(self: Space) -> Space:
    return NASBench201()


def two_of_one_name(self: Space) -> tuple[Decision, ...]:
    return (Decision("first", ("conv",)), Decision("first", ("conv",)))


BROKEN_SPACES: dict[str, Space] = {
    "one_hot_is_the_network_in_training": Noisy(what="doubled"),
    "one_hot_is_the_network_in_evaluation": Noisy(what="doubled-in-evaluation"),
    "one_hot_is_the_network_after_training": Noisy(what="depends-on-statistics"),
    "one_hot_has_the_gradients_of_the_network": Noisy(what="gradient"),
    "a_network_has_nothing_else": Noisy(what="own-weights"),
    "a_build_is_a_function_of_the_seed": Noisy(what="unseeded"),
    "notations_can_be_read_back": space_with(read=read_other),
    "samples_are_in_the_space": space_with(sample=outside, check=Ragged.check),
    "neighbours_are_one_change_away": space_with(neighbours=twice),
    "decode_inverts_encode": space_with(decode=first_always),
    "the_count_is_true": space_with(count=cached_property(lambda self: 12)),
    "the_cost_table_is_true": space_with(cost_table=free),
    "decisions_are_well_formed": space_with(decisions=property(two_of_one_name), limits=()),
    "strangers_are_refused": space_with(check=lenient),
    "alone_answers_the_same_decisions": space_with(alone=other_questions),
    "pictures_show_the_architecture": space_with(pictures=backwards),
}


@pytest.mark.parametrize("name", BROKEN_SPACES)
def test_a_broken_space_is_found(name):
    law = getattr(spaces, name)
    law(RAGGED)
    assert breaks(law, BROKEN_SPACES[name])


def test_an_option_that_runs_unasked_is_found():
    with mock.patch("gapless.engine.supernet.MixedSite", Loud), mock.patch("gapless.testing.spaces.MixedSite", Loud):
        said = breaks(spaces.what_is_not_active_does_not_run, RAGGED)
    assert "is not active, but was called" in said


def test_a_missing_neighbour_is_found():
    said = breaks(
        spaces.neighbours_are_one_change_away,
        space_with(neighbours=lambda self, arch: Ragged.neighbours(self, arch)[1:]),
    )
    assert "one change away" in said or "other way round" in said


def unbiased(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = x.mean(dim=0), x.var(dim=0)
    x -= mean
    return mean, variance


def without_statistics(self: Normed, g: Tensor, s1: Tensor, scale: Tensor, wanted: tuple[bool, bool]) -> tuple:
    return *linear_backward(self.linear, g * scale, self.z, self.weight, wanted), torch.zeros_like(s1)


def loose_scale(params, coefficients, sums, moments64, vectors, *rest):
    """The CPU's normalisation, with a scale that is a little off."""
    norm_forward(params, coefficients, sums, moments64, vectors, *rest)
    V = len(moments64) // 3
    vectors[SCALE * V : SHIFT * V] *= 1 + 1e-6


def no_sums(params, grad_params, coefficients, grad_coefficients, sums, *rest):
    """The CPU's gradient without the part that flows through the batch statistics."""
    norm_grads(params, grad_params, coefficients, grad_coefficients, 0 * sums, *rest)


BROKEN_KERNELS = {
    "moments": ("gapless.kernels.plain.centre", unbiased),
    "gradient": ("gapless.kernels.plain.Normed.backward", without_statistics),
    "compiled moments": ("gapless.kernels.cpu.walks.norm_forward", loose_scale),
    "compiled gradient": ("gapless.kernels.cpu.walks.norm_grads", no_sums),
    "statistics": ("gapless.kernels.fan.RunningStatistics.update", lambda self: None),
    "bypass": ("gapless.engine.supernet.bypass", lambda mixed, present, partial, mix: mixed.repeat(1, 1, 1, partial)),
}


@pytest.mark.parametrize("name", BROKEN_KERNELS)
def test_a_broken_kernel_is_found(name):
    space = RAGGED.replace(partial=2)
    plain = mock.patch("gapless.kernels.cpu.backend.serves", return_value=False)
    with nullcontext() if name.startswith("compiled") else plain:
        spaces.fused_is_the_reference(space)
        with mock.patch(*BROKEN_KERNELS[name]):
            assert breaks(spaces.fused_is_the_reference, space)


def test_every_law_of_a_space_bites():
    found_elsewhere = {"what_is_not_active_does_not_run", "fused_is_the_reference"}
    assert {law.__name__ for law in SPACE_LAWS} == {*BROKEN_SPACES, *found_elsewhere}


# ---------------------------------------------------------------------- methods


class Wrong(Softmax):
    """A softmax to break."""

    plan_of: Plan = Plan()

    def __init__(self, space: Space) -> None:
        super().__init__(space, plan=self.plan_of)


def method_with(**members: Any) -> type[Method]:
    return type("Wrong", (Wrong,), members)


def leaky_mix(self: Softmax, now: Progress) -> Mix:
    return Mix(self.scores(), tuple(row[:1] for row in self.active))


def infinite_scores(self: Softmax) -> Tensor:
    return self.alpha.masked_fill(~self.alive, -torch.inf)


def bare_softmax(self: Softmax, now: Progress) -> Mix:
    grown = self.alpha.double().mul(40).float().exp() * self.alive
    return Mix(grown / grown.sum(dim=-1, keepdim=True), self.active)


def global_noise(self: Softmax, now: Progress) -> Mix:
    return Mix(self.scores() * (1 + 0.1 * torch.rand(self.alpha.shape)), self.active)


def frozen_noise(self: Softmax, now: Progress) -> Mix:
    generator = torch.Generator().manual_seed(now.seed)
    return Mix(self.scores() * torch.rand(self.alpha.shape, generator=generator), self.active)


def hidden_state(self: Softmax, space: Space) -> None:
    Wrong.__init__(self, space)
    self.__dict__["temperature"] = torch.ones(())


def counting(self: Softmax, now: Progress) -> Mix:
    self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
    return Mix((self.alpha * self.asked).masked_fill(~self.alive, -torch.inf).softmax(dim=-1), self.active)


def flat_probabilities(self: Softmax) -> Tensor:
    return self.alive / self.alive.sum(dim=-1, keepdim=True)


def prune_the_best(self: Softmax, stage: Stage) -> None:
    with mock.patch.object(self, "scores", return_value=-Softmax.scores(self)):
        Method.narrow(self, stage)


def cut_off(self: Softmax, now: Progress) -> Mix:
    return Mix(self.scores().detach(), self.active)


def drifting_plan(self: Softmax) -> Plan:
    return replace(Plan(), warmup_epochs=int(self.alive.sum()) % 7)


def vector_penalty(self: Softmax, now: Progress) -> Tensor:
    return self.alpha.sum(dim=-1)


def touch_everything(self: Softmax, seen: Any) -> None:
    self.alpha.add_(1.0)


def wilful(self: Softmax, now: Progress) -> Mix:
    with torch.no_grad():
        self.alpha.add_(0.01)
    return Mix(self.scores(), self.active)


def forgetful(self: Softmax, bench: Bench) -> Arch:
    self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
    return bench.space.sample(bench.stream(f"pick {self.asked}"))


ASKED = [0]


def worldly(self: Softmax, now: Progress) -> Mix:
    ASKED[0] += 1
    return Mix((self.alpha * ASKED[0]).masked_fill(~self.alive, -torch.inf).softmax(dim=-1), self.active)


BROKEN_METHODS: dict[str, Any] = {
    "a_mix_fits_the_space": method_with(mix=leaky_mix),
    "scores_can_be_read_off": method_with(scores=infinite_scores),
    "large_parameters_do_no_harm": method_with(mix=bare_softmax),
    "a_mix_is_a_function_of_the_moment": method_with(mix=global_noise),
    "chance_is_fresh": method_with(mix=frozen_noise),
    "the_state_is_everything": method_with(__init__=hidden_state),
    "pruning_keeps_the_best": method_with(narrow=prune_the_best),
    "pruning_over_all_decisions_keeps_the_best": method_with(narrow=prune_the_best),
    "both_executions_train_alike": method_with(mix=worldly),
    "its_answer_holds_the_limits": method_with(pick=forgetful),
    "the_gradient_at_the_mix_arrives": method_with(mix=cut_off),
    "a_search_is_a_function_of_the_seed": method_with(mix=global_noise),
    "a_resumed_search_ends_as_an_uninterrupted_one": method_with(mix=counting),
    "probabilities_are_a_distribution": method_with(probabilities=flat_probabilities),
    "options_that_rest_are_untouched": method_with(settle=touch_everything),
    "a_warm_up_leaves_the_architecture_alone": method_with(mix=wilful),
    "the_plan_is_fixed": method_with(plan=property(drifting_plan)),
    "a_penalty_is_a_number": method_with(penalty=vector_penalty),
    "its_settings_are_documented": method_with(source=""),
}


@pytest.mark.parametrize("name", BROKEN_METHODS)
def test_a_broken_method_is_found(name):
    law = getattr(methods, name)
    law(Softmax, RAGGED)
    assert breaks(law, BROKEN_METHODS[name], RAGGED)


def test_a_method_that_learns_nothing_is_found():
    def nothing(self: Softmax, seen: Any) -> None:
        self.alpha.copy_(seen.before["alpha"])

    assert "no parameter moved" in breaks(methods.a_search_trains_it, method_with(settle=nothing), RAGGED)

    def mix(self: Paths, now: Progress) -> Mix:
        with torch.no_grad():
            self.extra.add_(1)
        return Paths.mix(self, now)

    def init(self: Paths, space: Space) -> None:
        Paths.__init__(self, space)
        self.extra = nn.Parameter(torch.zeros(()))

    assert "the plan trains weights only" in breaks(
        methods.a_search_trains_it, type("Wrong", (Paths,), {"__init__": init, "mix": mix}), RAGGED
    )


def test_a_clip_over_both_is_found():
    clip = Updater._clip

    def over_both(self: Updater, parameters: Any) -> None:
        clip(self, [*parameters, *self.method.parameters()])

    with mock.patch.object(Updater, "_clip", over_both):
        assert "by one norm" in breaks(methods.the_weight_clip_is_the_weights_own, Softmax, RAGGED)


def test_an_optimiser_that_coasts_is_found():
    """What does not run moves by its momentum and by Adam's moments, against a plan that says skip."""

    def coasting(space: Space) -> Method:
        return Softmax(space, plan=Plan(coupling="joint", inactive="coast"))

    def now_and_then(self: Softmax, now: Progress) -> Mix:
        active = tuple(row[: 1 + now.step % 2] for row in self.active)
        weight = torch.zeros_like(self.alpha)
        for row, columns in enumerate(active):
            weight[row, list(columns)] = 1
        return Mix(weight * self.alpha, active)

    with mock.patch.object(Softmax, "mix", now_and_then):
        methods.options_that_rest_are_untouched(lambda s: Softmax(s, plan=Plan(coupling="joint")), RAGGED)
        begin = methods.searched

        def lying(make_method: Any, space: Space) -> Search:
            search = begin(make_method, space)
            move, search_plan = search.updater._move_weights, search.plan

            def coast(ran: Any) -> None:
                search.updater.plan = replace(search_plan, inactive="coast")
                move(ran)
                search.updater.plan = search_plan

            search.updater._move_weights = coast
            return search

        with mock.patch.object(methods, "searched", lying):
            said = breaks(
                methods.options_that_rest_are_untouched, lambda s: Softmax(s, plan=Plan(coupling="joint")), RAGGED
            )
    assert "did not run, yet" in said
    assert coasting(RAGGED).plan.inactive == "coast"


def test_a_setting_without_help_is_found():
    class Undocumented(Softmax):
        """Nothing said."""

        settings = {"": Setting("somewhere")}

        def __init__(self, space: Space, *, hidden: float = 1.0) -> None:
            super().__init__(space)

    assert "does not explain hidden" in breaks(methods.its_settings_are_documented, Undocumented, RAGGED)


@pytest.mark.parametrize("wrong", [{"method": {"arch_rl": 1.0}}, {"variants": {"fast": {}}}])
def test_a_setting_of_a_space_that_the_method_does_not_have_is_found(wrong):
    kind = method_with(settings={"": Setting("somewhere", **wrong)})
    assert "which it does not have" in breaks(methods.its_settings_are_documented, kind, RAGGED)


def test_every_law_of_a_method_bites():
    assert {law.__name__ for law in METHOD_LAWS} == {
        *BROKEN_METHODS,
        "a_search_trains_it",
        "the_weight_clip_is_the_weights_own",
    }


# ---------------------------------------------------------------------- searches


def searcher_with(**members: Any) -> type[Searcher]:
    return type("Wrong", (Random,), members)


def one_too_many(self: Searcher, n: int = 1) -> list[Arch]:
    return Random.ask(self, n + 1)


def global_draws(self: Searcher, n: int = 1) -> list[Arch]:
    return [self.space.sample(torch.default_generator) for _ in range(n)]


def beyond(self: Searcher, n: int = 1) -> list[Arch]:
    drawn = [self.space.sample(stream(self.seed, "random", self.asked + i)) for i in range(n)]
    self.asked += n
    return drawn


def forgetful(self: Searcher, state: Mapping[str, Any]) -> None:
    return


def the_worst(self: Searcher, results: Any) -> None:
    Random.tell(self, [(arch, {"score": -scores["score"]}) for arch, scores in results])


def only_its_own(self: Searcher, results: list[Scored]) -> None:
    if self.asked:
        Random.tell(self, results)


BROKEN_SEARCHERS = {
    "what_it_asks_is_in_the_space": searcher_with(ask=one_too_many),
    "it_is_a_function_of_the_seed": searcher_with(ask=global_draws),
    "the_state_is_everything": searcher_with(load_state_dict=forgetful),
    "the_best_is_what_scored_best": searcher_with(tell=the_worst),
    "it_takes_what_it_did_not_ask": searcher_with(tell=only_its_own),
    "what_it_asks_is_within": searcher_with(ask=beyond),
    "it_names_its_source": searcher_with(source=""),
}


@pytest.mark.parametrize("name", BROKEN_SEARCHERS)
def test_a_broken_search_is_found(name):
    law = getattr(searchers, name)
    law(Random, RAGGED)
    assert breaks(law, BROKEN_SEARCHERS[name], RAGGED)


def test_every_law_of_a_search_bites():
    assert {law.__name__ for law in SEARCHER_LAWS} == set(BROKEN_SEARCHERS)


# ---------------------------------------------------------------------- scores


class Right(Judge):
    """Counts letters."""

    label = "right"
    source = "made for tests"

    def __call__(self, arch: Arch) -> float:
        return float(len(str(arch)))


def judge_with(**members: Any) -> type[Judge]:
    return type("WrongJudge", (Right,), members)


def tired(self: Judge, arch: Arch) -> float:
    self.count = getattr(self, "count", 0) + 1
    return Right.__call__(self, arch) - self.count


BROKEN_JUDGES = {
    "a_score_is_a_function_of_the_architecture": judge_with(__call__=tired),
    "a_score_can_be_compared": judge_with(__call__=lambda self, arch: 1.0),
    "it_draws_on_no_global_generator": judge_with(__call__=lambda self, arch: float(torch.rand(()))),
    "it_says_what_it_is": judge_with(source=""),
}


@pytest.mark.parametrize("name", BROKEN_JUDGES)
def test_a_broken_judge_is_found(name):
    law = getattr(scores, name)
    law(lambda: Right(RAGGED, torch.device("cpu")), RAGGED)
    assert breaks(law, lambda: BROKEN_JUDGES[name](RAGGED, torch.device("cpu")), RAGGED)


def test_every_law_of_a_score_bites():
    assert {law.__name__ for law in SCORE_LAWS} == set(BROKEN_JUDGES)


# ---------------------------------------------------------------------- tables

DIGITS = Insights64(size=8, width=4, cells=1)


class RightTable(BenchmarkTable):
    """Half of the networks of a small space, with values that are made up; some are equal."""

    label = "right"
    source = "made for tests"
    looks_like = "nothing that lies in a file"
    space = DIGITS
    default_column = "test"
    search_column = "valid"

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        archs = cls.rows()
        worth = torch.tensor([sum(map(int, arch)) + int(arch[0]) / 10 for arch in archs], dtype=torch.float64)
        return cls(archs, cls.measured(worth))

    @classmethod
    def rows(cls) -> list[str]:
        return [DIGITS.write(arch) for arch in DIGITS.every()][::2]

    @classmethod
    def measured(cls, worth: Tensor) -> list[Column]:
        latency = Column("latency", 20 - worth, unit="ms", higher_is_better=False)
        return [
            Column("test", 80 + worth, test=True, repeated_by="valid"),
            Column("valid", 79 + worth.floor()),
            latency,
        ]


class FoldedTable(RightTable):
    """Networks with the same operations are one row, whatever their edges."""

    @classmethod
    def rows(cls) -> list[str]:
        return [text for arch in DIGITS.every() if (text := DIGITS.write(arch)) == "".join(sorted(text))]

    def key(self, arch: Arch) -> str:
        return "".join(sorted(self.space.write(arch)))


def table_with(base: type[RightTable] = RightTable, **members: Any) -> type[RightTable]:
    return type("WrongTable", (base,), members)


def columns_with(name: str, **fields: Any) -> classmethod:
    def measured(cls: type[RightTable], worth: Tensor) -> list[Column]:
        return [replace(c, **fields) if c.name == name else c for c in RightTable.measured(worth)]

    return classmethod(measured)


def larger_is_better(self: RightTable, arch: Arch, column: str) -> int:
    return 1 + int((self.column(column).values > self.value(arch, column)).sum())


def with_ties(self: RightTable, arch: Arch, column: str) -> float:
    return 100 * float((self.column(column).values <= self.value(arch, column)).double().mean())


def next_row(self: RightTable, arch: Arch) -> dict[str, float]:
    place = (self.place(arch) + 1) % len(self.archs)
    return {name: float(column.values[place]) for name, column in self.columns.items()}


def two_values(self: RightTable, arch: Arch) -> dict[str, float]:
    bonus = float(self.space.write(arch) != self.key(arch))
    return {name: value + bonus for name, value in RightTable.row(self, arch).items()}


READINGS = itertools.count()


def every_time_other_rows(cls: type[RightTable]) -> list[str]:
    return RightTable.rows()[next(READINGS) % 2 :]


BROKEN_TABLES = {
    "every_row_is_an_architecture_of_the_space": [
        table_with(key=lambda self, arch: self.space.write(arch)[::-1]),
        table_with(find=lambda self, arch: 0),
    ],
    "rank_and_percentile_agree_with_sorting": [table_with(rank=larger_is_better), table_with(percentile=with_ties)],
    "the_best_is_rank_1": [table_with(best=lambda self, column: self.parse(self.archs[0]))],
    "every_column_is_explained": [
        table_with(measured=columns_with("test", unit="")),
        table_with(measured=columns_with("latency", unit="%", higher_is_better=True, values=torch.rand(32))),
        table_with(measured=columns_with("test", repeated_by="train")),
        table_with(measured=columns_with("valid", test=True)),
        table_with(measured=columns_with("valid", values=torch.ones(3))),
        table_with(default_column="accuracy"),
        table_with(default_column="latency"),
    ],
    "rows_and_single_values_agree": [table_with(row=next_row)],
    "what_it_lacks_is_refused": [
        table_with(find=lambda self, arch: self.places.get(self.key(arch)), place=lambda self, arch: 0),
        table_with(column=lambda self, name: self.columns["test"]),
        table_with(check=lambda self, space, whose: None),
    ],
    "it_holds_its_own_space": [
        table_with(holds=lambda self, space: space == self.space),
        table_with(holds=lambda self, space: True),
    ],
    "the_same_file_says_the_same": [
        table_with(rows=classmethod(every_time_other_rows)),
        table_with(fingerprint=lambda self, column: "the same"),
    ],
    "folded_architectures_are_one_row": [table_with(FoldedTable, row=two_values)],
    "it_says_what_it_is": [table_with(source=""), table_with(params=torch.zeros(32))],
}


@pytest.mark.parametrize("base", [RightTable, FoldedTable])
@pytest.mark.parametrize("law", TABLE_LAWS, ids=title)
def test_a_right_table_obeys_every_law(law, base):
    law(base.read)


@pytest.mark.parametrize(("name", "broken"), [(name, b) for name, found in BROKEN_TABLES.items() for b in found])
def test_a_broken_table_is_found(name, broken):
    assert breaks(getattr(tables, name), broken.read)


def test_every_law_of_a_table_bites():
    assert {law.__name__ for law in TABLE_LAWS} == set(BROKEN_TABLES)


# ---------------------------------------------------------------------- the examples


def test_the_examples_are_what_they_are_meant_to_be():
    assert {int(row.sum()) for row in RAGGED.legal} == {1, 2, 3, 4}
    assert any(d.never for d in RAGGED.decisions)
    assert all(isinstance(limit, Keep) for limit in RAGGED.limits)
    assert len(RAGGED.limits) == 2
    assert patched().count == 6
    assert isinstance(Supernet(RAGGED).network.chain[0], MixedSite)
