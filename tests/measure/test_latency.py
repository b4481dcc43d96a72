"""Latency tables. No test depends on how fast this machine is: timers are given."""

import json
import math
from functools import cache

import pytest
import torch
from torch import nn

from gapless.core.bound import Bound, budget
from gapless.core.cost import count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.engine.fit import cheapest, fit
from gapless.measure import latency
from gapless.measure.latency import LatencyTable, measure, measured, respecting, stopwatch
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, patched

NB201 = NASBench201(size=8, width=4, cells=2)
SPACES = {
    "ragged": Ragged(),
    "ragged-partial": Ragged(partial=2),
    "nasbench201": NB201,
    "nasbench201-partial": NB201.replace(partial=2),
    "darts": Darts(size=8, width=4, cells=3),
    "darts-alone": Darts(size=8, width=4, cells=3, affine=True, auxiliary=True, drop_path=True, pool_norm="none"),
    "patched": patched(),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))


def by_macs(module, inputs):
    return float(count_macs(module, *(tuple(x.shape[1:]) for x in inputs)))


def by_params(module, inputs):
    return float(count_params(module))


@cache
def table_of():
    return measure(NB201, repeats=1, samples=2, timer=by_macs)


# ---------------------------------------------------------------------- the table


@every_space
@pytest.mark.parametrize(("timer", "unit"), [(by_macs, "macs"), (by_params, "params")], ids=["macs", "params"])
def test_a_timer_that_counts_gives_the_cost_table(space, timer, unit):
    """Every place of every option is there, once, at its size; the constant is the rest, and the predictions are exact."""
    found = measure(space, repeats=1, samples=2, timer=timer)
    table, constant = space.cost_table(unit)
    assert torch.equal(found.table, table)
    assert found.constant == constant
    assert found.error == 0
    arch = space.sample(stream("predict"))
    assert found.predict(arch) == budget(space, [Bound(unit, 1)], alone=space).costs(arch)[unit]
    assert [check.predicted for check in found.checks] == [check.measured for check in found.checks]


def test_equal_questions_are_asked_once_and_all_by_turns():
    """NAS-Bench-201: four operations that do something at three sizes, a sum at three sizes, and the whole networks."""
    asked = []

    def timer(module, inputs):
        asked.append(id(module))
        assert not module.training
        assert not torch.is_grad_enabled()
        return 1.0

    measure(NB201, batch=3, repeats=4, samples=2, timer=timer)
    rounds = [asked[i : i + 17] for i in range(0, len(asked), 17)]
    assert len(rounds) == 1 + 4  # the first warms up
    assert len(set(rounds[0])) == 3 * 4 + 3 + 2
    assert all(each == rounds[0] for each in rounds)


def test_the_median_of_the_rounds_counts_and_the_first_does_not():
    calls = {}

    def timer(module, inputs):
        calls[id(module)] = n = calls.get(id(module), -1) + 1
        return by_macs(module, inputs) * [1000, 1, 1, 50, 1, 70][n]

    found = measure(NB201, repeats=5, samples=2, timer=timer)
    assert torch.equal(found.table, NB201.cost_table("macs")[0])


def test_sums_are_counted_with_what_they_add():
    """Each edge that brings something costs a sum: 2 cells at 3 sizes; "none" brings nothing, and is left out."""
    found = measure(NB201, repeats=1, samples=2, timer=lambda module, inputs: float(len(inputs) == 2))
    assert found.table.tolist() == [[0.0, 6.0, 6.0, 6.0, 6.0]] * 6


def test_a_check_does_not_know_its_own_measurement():
    """One of two networks takes 100 more than the sum of its parts: each is predicted as if the other were the rule."""
    seen = []

    def timer(module, inputs):
        whole = len(inputs) == 1 and inputs[0].shape[1] == 3
        if whole and id(module) not in seen:
            seen.append(id(module))
        return by_macs(module, inputs) + (100.0 if whole and id(module) == seen[0] else 0.0)

    found = measure(NB201, repeats=1, samples=2, timer=timer)
    gaps = [check.measured - check.predicted for check in found.checks]
    assert gaps == [100, -100]
    assert found.error == pytest.approx(sum(100 / check.measured for check in found.checks) / 2)
    assert found.constant == NB201.cost_table("macs")[1] + 50


def test_batches_are_measured():
    widths = set()
    measure(
        NB201, batch=5, repeats=1, samples=2, timer=lambda module, inputs: float(widths.add(inputs[0].shape[0]) is None)
    )
    assert widths == {5}


def test_measuring_leaves_the_generator_and_the_threads_alone():
    state, threads, asked = torch.get_rng_state(), torch.get_num_threads(), set()

    def timer(module, inputs):
        asked.add(torch.get_num_threads())
        return 1.0

    found = measure(Ragged(), repeats=1, samples=2, threads=threads + 1, timer=timer)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert asked == {threads + 1}
    assert found.threads == threads + 1


def test_a_users_model_is_not_changed():
    space = patched()
    before = {name: value.clone() for name, value in space.model.state_dict().items()}
    measure(space, repeats=1, samples=2)
    assert space.model.training
    assert all(torch.equal(before[name], value) for name, value in space.model.state_dict().items())


def test_a_real_measurement_has_the_right_shape():
    found = measure(NB201, repeats=2, samples=2)
    assert bool((found.table[:, 1:] > 0).all())
    assert not found.table[:, 0].any()
    assert all(check.measured > 0 for check in found.checks)
    assert math.isfinite(found.error)


@pytest.mark.parametrize("given", [{"batch": 0}, {"repeats": 0}, {"samples": 1}])
def test_too_little_is_told(given):
    ((name, value),) = given.items()
    with pytest.raises(UserError, match=f"{name} is {value}; latency needs at least"):
        measure(NB201, **given)


# ---------------------------------------------------------------------- the clock


class Slow(nn.Module):
    """Takes so many milliseconds of a clock that only it moves."""

    def __init__(self, clock, ms):
        super().__init__()
        self.clock, self.ms, self.calls = clock, ms, 0

    def forward(self, x):
        self.clock[0] += self.ms / 1000
        self.calls += 1
        return x


@pytest.mark.parametrize(("ms", "calls"), [(30.0, 1), (0.25, 4), (0.09, 12)])
def test_the_stopwatch_divides_by_the_calls(monkeypatch, ms, calls):
    clock = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    slow = Slow(clock, ms)
    assert stopwatch("cpu")(slow, (torch.zeros(1),)) == pytest.approx(ms)
    assert slow.calls == calls


def test_a_whole_network_is_measured_in_evaluation():
    network = NB201.network(NB201.sample(stream(1))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    numbers = iter([9.0, 3.0, 1.0, 2.0])

    def timer(module, inputs):
        assert not module.training
        assert inputs[0].shape == (2, 3, 8, 8)
        module(*inputs)
        return next(numbers)

    assert measured(network, (3, 8, 8), batch=2, repeats=3, timer=timer) == 2.0
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


# ---------------------------------------------------------------------- the file


@every_space
def test_a_table_is_read_back(space, tmp_path):
    found = measure(space, repeats=1, samples=2, timer=lambda module, inputs: by_params(module, inputs) / 3e5 + 0.1)
    found.write(tmp_path / "latency.json")
    again = LatencyTable.read(tmp_path / "latency.json", space)
    assert torch.equal(again.table, found.table)
    assert again.prices[1] == found.constant
    assert again.checks == found.checks
    assert again.error == found.error
    assert (again.device, again.threads, again.batch, again.torch) == (
        found.device,
        found.threads,
        1,
        torch.__version__,
    )


def test_the_file_speaks_of_decisions_and_options(tmp_path):
    table_of().write(tmp_path / "latency.json")
    content = json.loads((tmp_path / "latency.json").read_text())
    assert content["unit"] == "ms"
    assert content["table"]["1<-0"]["nor_conv_3x3"] == 2 * 9 * (4 * 4 * 64 + 8 * 8 * 16 + 16 * 16 * 4)
    assert content["space"]["width"] == 4
    NB201.check(Arch.parse(content["checks"][0]["arch"]))


def test_another_space_or_size_is_refused(tmp_path):
    path = tmp_path / "latency.json"
    table_of().write(path)
    with pytest.raises(UserError, match="measured for another network: width is 4 there, and 8 here"):
        LatencyTable.read(path, NB201.replace(width=8))
    with pytest.raises(UserError, match="label is nasbench201 there, and ragged here"):
        LatencyTable.read(path, Ragged())


def test_what_is_no_latency_file_is_refused(tmp_path):
    path = tmp_path / "latency.json"
    with pytest.raises(UserError, match="cannot be read: there is no such file"):
        LatencyTable.read(path, NB201)
    table_of().write(path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"[1]", b'{"format": "other"}', b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no latency file of Gapless, or only a part of one"):
            LatencyTable.read(path, NB201)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("constant", math.nan),
        ("constant", "1"),
        ("table", {}),
        ("table", 3),
        ("table", {"1<-0": 4}),
        ("checks", [{"arch": "x"}]),
        ("checks", 4),
        ("threads", "many"),
        ("device", None),
    ],
)
def test_spoilt_parts_are_found(tmp_path, key, value):
    path = tmp_path / "latency.json"
    table_of().write(path)
    content = json.loads(path.read_text())
    if value is None:
        del content[key]
    else:
        content[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="with a part missing or spoilt"):
        LatencyTable.read(path, NB201)


def test_a_missing_or_endless_entry_is_found(tmp_path):
    path = tmp_path / "latency.json"
    table_of().write(path)
    whole = path.read_text()
    for wrong in (None, math.inf, True):
        content = json.loads(whole)
        if wrong is None:
            del content["table"]["3<-1"]["none"]
        else:
            content["table"]["3<-1"]["none"] = wrong
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="with a part missing or spoilt"):
            LatencyTable.read(path, NB201)


# ---------------------------------------------------------------------- an architecture that holds the bound


TABLE = torch.rand(NB201.shape, generator=stream("ms"), dtype=torch.float64)


def tight(share):
    """A budget between the fastest and the slowest architecture of a table."""
    wide = budget(NB201, ["latency=1ms"], latency=(TABLE, 0.5), alone=NB201)
    least, most = cheapest(NB201, wide)["latency"], float(0.5 + TABLE.max(dim=1).values.sum())
    return wide.tightened("latency", least + share * (most - least))


SCORES = torch.rand(NB201.shape, generator=stream("respecting"), dtype=torch.float64)


def test_what_is_fast_enough_is_taken_at_once():
    made, asked = tight(0.5), []

    def timed(arch):
        asked.append(arch)
        return made.costs(arch)["latency"]

    arch, ms = respecting(SCORES, NB201, made, timed)
    assert asked == [arch] == [fit(SCORES, NB201, made)]
    assert ms == made.costs(arch)["latency"] <= made.bounds[0].most


def test_a_table_that_promises_too_much_is_corrected_by_the_ratio():
    """Networks take 1.3 times what the table says: the second architecture is asked to be so much faster, and is."""
    made, asked = tight(0.4), []
    most = made.bounds[0].most

    def timed(arch):
        asked.append(made.costs(arch)["latency"])
        return 1.3 * asked[-1]

    arch, ms = respecting(SCORES, NB201, made, timed)
    assert ms == 1.3 * made.costs(arch)["latency"] <= most
    assert len(asked) == 2
    assert asked[0] > most / 1.3 >= asked[1]
    assert arch == fit(SCORES, NB201, made.tightened("latency", most / 1.3))


def test_it_gives_up_with_numbers():
    made, asked = tight(0.3), []

    def timed(arch):
        asked.append(arch)
        return made.bounds[0].most * (1.001 + 0.001 * len(asked))

    with pytest.raises(UserError) as caught:
        respecting(SCORES, NB201, made, timed, tries=5)
    assert len(asked) == len(set(asked)) == 5
    assert "of 5 that were measured none is: the fastest takes" in str(caught.value)
    assert NB201.write(asked[0]) in str(caught.value)


def test_it_stops_where_nothing_faster_is_left():
    made, asked = tight(0.01), []

    def timed(arch):
        asked.append(arch)
        return 1000.0

    with pytest.raises(
        UserError, match="of 1 that were measured none is: the fastest takes 1,000 ms .*Try the `limit` latency=1100ms"
    ):
        respecting(SCORES, NB201, made, timed)
    assert len(asked) == 1


def test_what_no_table_promises_is_refused_before_measuring():
    made = tight(0.5).tightened("latency", 1e-9)
    with pytest.raises(UserError, match="No architecture of nasbench201 has at most 1e-09 ms"):
        respecting(SCORES, NB201, made, lambda arch: 0.0)
