"""The DARTS space: its graph, its read-out rule, genotypes in all forms."""

import ast
import json

import pytest
import torch

from gapless.core.cost import Undrawn
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.op import HalvesModule
from gapless.core.progress import stream
from gapless.engine.supernet import Supernet
from gapless.spaces.darts import CELLS, COLLAPSE, GENOTYPES, OPTIONS, Darts

SPACE = Darts(size=8, width=4, cells=3)
V2 = Arch(
    {
        "normal:2<-0": "sep_conv_3x3",
        "normal:2<-1": "sep_conv_3x3",
        "normal:3<-0": "sep_conv_3x3",
        "normal:3<-1": "sep_conv_3x3",
        "normal:4<-1": "sep_conv_3x3",
        "normal:4<-0": "skip_connect",
        "normal:5<-0": "skip_connect",
        "normal:5<-2": "dil_conv_3x3",
        "reduce:2<-0": "max_pool_3x3",
        "reduce:2<-1": "max_pool_3x3",
        "reduce:3<-2": "skip_connect",
        "reduce:3<-1": "max_pool_3x3",
        "reduce:4<-0": "max_pool_3x3",
        "reduce:4<-2": "skip_connect",
        "reduce:5<-2": "skip_connect",
        "reduce:5<-1": "max_pool_3x3",
    }
)
NORMAL_NODES = (
    "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)",
    "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)",
    "('sep_conv_3x3', 1), ('skip_connect', 0)",
    "('skip_connect', 0), ('dil_conv_3x3', 2)",
)
REDUCE_NODES = (
    "('max_pool_3x3', 0), ('max_pool_3x3', 1)",
    "('skip_connect', 2), ('max_pool_3x3', 1)",
    "('max_pool_3x3', 0), ('skip_connect', 2)",
    "('skip_connect', 2), ('max_pool_3x3', 1)",
)
NORMAL, REDUCE = f"[{', '.join(NORMAL_NODES)}]", f"[{', '.join(REDUCE_NODES)}]"
FLAT = f"Genotype(normal={NORMAL}, normal_concat=[2, 3, 4, 5], reduce={REDUCE}, reduce_concat=[2, 3, 4, 5])"
NESTED = (
    f"Genotype(normal=[{', '.join(f'[{pair}]' for pair in NORMAL_NODES)}], normal_concat=range(2, 6), "
    f"reduce=[{', '.join(f'[{pair}]' for pair in REDUCE_NODES)}], reduce_concat=range(2, 6))"
)

S1_FOUND = (  # by DARTS in S1 on CIFAR-10, seed 1 (released search log of RobustDARTS)
    "Genotype(normal=[('skip_connect', 1), ('dil_conv_3x3', 0), ('skip_connect', 2), ('skip_connect', 0), "
    "('skip_connect', 0), ('skip_connect', 2), ('skip_connect', 2), ('skip_connect', 1)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)

# ---------------------------------------------------------------------- the graph


def test_fourteen_edges_in_rows_by_node_and_source():
    for kind in ("normal", "reduce"):
        edges = CELLS[kind].edges
        assert len(edges) == 14
        assert [(e.target, e.source) for e in edges] == sorted((e.target, e.source) for e in edges)
        for node, first in zip(range(2, 6), (0, 2, 5, 9), strict=True):
            assert edges[first].target == node
            assert edges[first].source == 0
            assert len(CELLS[kind].into(node)) == node
    assert [e.stride for e in CELLS["reduce"].edges] == [2 if e.source < 2 else 1 for e in CELLS["reduce"].edges]
    assert {e.stride for e in CELLS["normal"].edges} == {1}
    assert [d.name for d in SPACE.decisions[:3]] == ["normal:2<-0", "normal:2<-1", "normal:3<-0"]
    assert SPACE.decisions[14].name == "reduce:2<-0"


@pytest.mark.parametrize(("cells", "places"), [(8, (2, 5)), (14, (4, 9)), (20, (6, 13)), (3, (1, 2))])
def test_reduction_cells_stand_at_one_and_two_thirds(cells, places):
    assert SPACE.replace(cells=cells).reductions == places


def test_column_order():
    seven = (
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
    convs = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
    assert OPTIONS["darts"] == ("none", *seven)
    assert OPTIONS["drnas"] == seven
    assert OPTIONS["original"] == (*convs, "max_pool_3x3", "avg_pool_3x3", "skip_connect", "none")
    assert OPTIONS["3-skip"] == (*convs, "skip_connect", "skip_connect#2", "skip_connect#3", "none")
    assert OPTIONS["1-skip"] == (*convs, "skip_connect", "none")


def test_groups_are_options_with_weights_and_without():
    for d in SPACE.replace(options="3-skip").decisions:
        assert [d.groups[o] for o in d.options] == ["weights"] * 4 + ["free"] * 4


# ---------------------------------------------------------------------- the spaces of RobustDARTS


def test_option_sets_of_robust_darts():
    """src/spaces.py of the released code."""
    alike = {
        "s2": ("skip_connect", "sep_conv_3x3"),
        "s3": ("none", "skip_connect", "sep_conv_3x3"),
        "s4": ("noise", "sep_conv_3x3"),
    }
    for name, options in alike.items():
        assert {d.options for d in SPACE.replace(options=name).decisions} == {options}
    s1 = {d.name: d.options for d in SPACE.replace(options="s1").decisions}
    assert {len(options) for options in s1.values()} == {2}
    by_hand = {
        "normal:2<-0": ("skip_connect", "dil_conv_3x3"),
        "normal:3<-1": ("skip_connect", "sep_conv_3x3"),
        "normal:4<-0": ("max_pool_3x3", "skip_connect"),
        "normal:5<-1": ("max_pool_3x3", "skip_connect"),
        "normal:5<-4": ("dil_conv_3x3", "dil_conv_5x5"),
        "reduce:2<-0": ("max_pool_3x3", "avg_pool_3x3"),
        "reduce:2<-1": ("max_pool_3x3", "dil_conv_3x3"),
        "reduce:3<-2": ("skip_connect", "dil_conv_5x5"),
        "reduce:4<-1": ("max_pool_3x3", "sep_conv_3x3"),
        "reduce:5<-4": ("skip_connect", "dil_conv_5x5"),
    }
    assert {name: s1[name] for name in by_hand} == by_hand
    assert set(OPTIONS["s1"]) == {o for options in s1.values() for o in options}


@pytest.mark.parametrize("options", COLLAPSE)
def test_each_space_of_robust_darts_has_as_many_architectures(options):
    """Every edge has two answers and every node keeps two edges: 2^16 * (1 * 3 * 6 * 10)^2."""
    assert SPACE.replace(options=options).count == 2**16 * 180**2


@pytest.mark.parametrize("options", COLLAPSE)
def test_robust_darts_retrains_eight_cells_of_width_16(options):
    alone = SPACE.replace(options=options).alone()
    assert (alone.cells, alone.width, alone.affine, alone.auxiliary, alone.drop_path) == (8, 16, True, True, True)


def test_none_of_s3_is_never_read_off_and_noise_of_s4_is():
    scores = torch.zeros(SPACE.shape[0], 3)
    scores[:, 0] = 1  # none everywhere
    scores[0, 2] = 0.1
    arch = SPACE.replace(options="s3").decode(scores)
    assert arch["normal:2<-0"] == "sep_conv_3x3"
    assert set(arch.values()) == {"sep_conv_3x3", "skip_connect"}
    arch = SPACE.replace(options="s4").decode(scores[:, :2])
    assert set(arch.values()) == {"noise"}


def test_groups_of_edges_without_weights_or_without_anything_else():
    groups = {d.name: set(d.groups.values()) for d in SPACE.replace(options="s1").decisions}
    assert groups["reduce:2<-0"] == {"free"}
    assert groups["normal:5<-4"] == {"weights"}
    assert SPACE.replace(options="s4").decisions[0].groups == {"noise": "free", "sep_conv_3x3": "weights"}


def test_an_edge_of_s1_has_its_own_options():
    space = SPACE.replace(options="s1")
    arch = space.read(S1_FOUND)
    assert space.read(space.write(arch)) == arch
    with pytest.raises(
        UserError, match="'sep_conv_3x3' is no option of the edge normal:2<-1.*skip_connect, dil_conv_5"
    ):
        space.read(S1_FOUND.replace("normal=[('skip_connect', 1)", "normal=[('sep_conv_3x3', 1)"))
    with pytest.raises(UserError, match="'sep_conv_5x5' is not among the options 's1'"):
        space.read(S1_FOUND.replace("normal=[('skip_connect', 1)", "normal=[('sep_conv_5x5', 1)"))


def test_a_genotype_with_noise_is_pointed_to_its_space():
    with pytest.raises(UserError, match="'noise' is not among the options 'darts'.*Set `options` to 's4'"):
        SPACE.read(FLAT.replace("dil_conv_3x3", "noise"))


def test_preprocessing_halves_behind_a_reduction():
    with Undrawn():
        cells = Supernet(SPACE.replace(cells=8)).network.cells
    halved = [any(isinstance(m, HalvesModule) for m in cell.preprocess0.modules()) for cell in cells]
    assert halved == [i - 1 in (2, 5) for i in range(8)]
    assert not any(isinstance(m, HalvesModule) for cell in cells for m in cell.preprocess1.modules())


@pytest.mark.parametrize("pool_norm", ["none", "plain", "affine"])
def test_normalisation_behind_pools(pool_norm):
    ops = SPACE.replace(pool_norm=pool_norm).ops()
    layers = ops["max_pool_3x3"].layers[1:]
    assert [layer.affine for layer in layers] == {"none": [], "plain": [False], "affine": [True]}[pool_norm]
    assert ops["sep_conv_3x3"].layers == Darts(pool_norm="none").ops()["sep_conv_3x3"].layers


def test_the_auxiliary_head_is_apart_from_the_logits():
    space = SPACE.replace(auxiliary=True)
    network = space.network(space.sample(stream(0))).eval()
    x = torch.randn(2, 3, 8, 8)
    logits, other = network.forward_with_aux(x)
    assert torch.equal(logits, network(x))
    assert other.shape == (2, 10)
    plain = SPACE.network(space.sample(stream(0)))
    assert plain.forward_with_aux(x)[1] is None


# ---------------------------------------------------------------------- the rule of DARTS


def table(**edges: list[float]) -> torch.Tensor:
    scores = torch.full(SPACE.shape, 0.01)
    for name, row in edges.items():
        scores[SPACE.rows[name.replace("n", "normal:").replace("_", "<-")]] = torch.tensor(row)
    return scores


def kept(arch: Arch, node: int) -> dict[int, str]:
    return {int(name.partition("<-")[2]): option for name, option in arch.items() if name.startswith(f"normal:{node}")}


def test_two_strongest_edges_by_their_strongest_operation():
    #                        none  max  avg  skip  s3   s5   d3   d5
    arch = SPACE.decode(
        table(n3_0=[0, 0, 0.4, 0, 0, 0.3, 0, 0], n3_1=[0, 0.2, 0, 0, 0, 0, 0, 0.1], n3_2=[0, 0, 0, 0.3, 0, 0, 0, 0.9])
    )
    assert kept(arch, 3) == {0: "avg_pool_3x3", 2: "dil_conv_5x5"}


def test_none_is_never_read_off_and_is_no_strength():
    """An edge whose mass is all on none has the strength of its largest other entry."""
    arch = SPACE.decode(
        table(n3_0=[0.9, 0.05, 0, 0, 0, 0, 0, 0], n3_1=[0, 0.2, 0, 0, 0, 0, 0, 0], n3_2=[0, 0, 0, 0.1, 0, 0, 0, 0])
    )
    assert kept(arch, 3) == {1: "max_pool_3x3", 2: "skip_connect"}
    assert "none" not in arch.values()


def test_ties_go_to_the_lower_source_and_to_the_earlier_column():
    arch = SPACE.decode(torch.zeros(SPACE.shape))
    for node in range(2, 6):
        assert kept(arch, node) == {0: "max_pool_3x3", 1: "max_pool_3x3"}


def test_edges_into_a_node_have_different_sources():
    for i in range(20):
        arch = SPACE.decode(torch.randn(SPACE.shape, generator=stream(i)))
        assert all(len(kept(arch, node)) == 2 for node in range(2, 6))


# ---------------------------------------------------------------------- genotypes


@pytest.mark.parametrize(
    "text",
    [
        FLAT,
        NESTED,
        f"DARTS_V2 = {FLAT}",
        f"  best   = {NESTED}\n",
        "DARTS_V2",
        f"Genotype({NORMAL}, range(2, 6), {REDUCE}, range(2, 6))",
        f"Genotype({NORMAL}, [2, 3, 4, 5], reduce={REDUCE}, reduce_concat=[2, 3, 4, 5])",
        FLAT.replace("(", "( ").replace(", ", ",\n   "),
        FLAT.replace("('", "['").replace("), ", "], ").replace(")]", "]]"),
        FLAT.replace("'", '"'),
        str(V2),
    ],
    ids=[
        "flat",
        "nested",
        "assigned",
        "assigned-nested",
        "published",
        "positional",
        "mixed",
        "many-lines",
        "lists",
        "quotes",
        "ours",
    ],
)
def test_a_genotype_is_read_in_all_forms(text):
    assert SPACE.read(text) == V2


def test_a_genotype_is_read_from_a_file(tmp_path):
    (tmp_path / "genotype.txt").write_text(f"\nDARTS_V2 = {FLAT}\n")
    (tmp_path / "arch.json").write_text(json.dumps({"arch": NESTED}))
    assert SPACE.read(tmp_path / "genotype.txt") == V2
    assert SPACE.read(tmp_path / "arch.json") == V2


@pytest.mark.parametrize("name", GENOTYPES)
def test_published_genotypes_are_in_the_space_and_have_a_source(name):
    arch = SPACE.read(name)
    assert SPACE.read(SPACE.write(arch)) == arch
    assert "arXiv" in GENOTYPES[name]["source"]
    assert "none" not in arch.values()


def test_what_is_written_is_a_genotype():
    assert SPACE.write(V2).startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
    assert SPACE.write(V2).endswith("reduce_concat=range(2, 6))")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no genotype"),
        ("rubbish", "no genotype.*nor a published one: DARTS_V1"),
        ("DARTS_V3", "no genotype"),
        ("Genotype", "no genotype"),
        ("Genotype(", "no genotype"),
        ("Genotype()", "no 'normal' cell"),
        (f"Genotype(normal={NORMAL})", "no 'reduce' cell"),
        (f"Genotyp(normal={NORMAL}, reduce={REDUCE})", "no genotype"),
        (f"Genotype(normal=3, reduce={REDUCE})", "must be a list"),
        (f"Genotype(normal=[1, 2, 3, 4], reduce={REDUCE})", "holds 1"),
        (f"Genotype(normal=[('sep_conv_3x3', 0)], reduce={REDUCE})", "feeds 1 nodes; it must feed 4"),
        (FLAT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', '2')"), "holds.*each pair is"),
        (FLAT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"), "feeds node 5 from state 5"),
        (FLAT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', -1)"), "feeds node 5 from state -1"),
        (FLAT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)"), "two edges normal:5<-0"),
        (FLAT.replace("dil_conv_3x3", "dill_conv_3x3"), "operation 'dill_conv_3x3'. Did you mean 'dil_conv_3x3'"),
        (FLAT.replace("dil_conv_3x3", "nor_conv_3x3"), "'nor_conv_3x3' is not among the options 'darts'"),
        (FLAT.replace("dil_conv_3x3", "none"), "'none' is no answer"),
    ],
)
def test_garbage_is_answered_in_words(text, said):
    with pytest.raises(UserError, match=said):
        SPACE.read(text)


def test_an_operation_of_another_option_set_is_pointed_to():
    with pytest.raises(UserError, match="Set `options` to 'darts'"):
        SPACE.replace(options="1-skip").read("DARTS_V2")


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=__import__('os').system('touch PROOF'), reduce=[])",
        "__import__('pathlib').Path('PROOF').touch()",
        "__import__('pathlib').Path('PROOF').touch() or Genotype(normal=[], reduce=[])",
        "Genotype(normal=[x for x in [open('PROOF', 'w')]], reduce=[])",
        "Genotype(**{'normal': open('PROOF', 'w')})",
        "Genotype(*[open('PROOF', 'w')])",
        "Genotype(normal=(lambda: open('PROOF', 'w'))(), reduce=[])",
        "Genotype.__class__(normal=[], reduce=[])",
        "Genotype(normal=[]); open('PROOF', 'w')",
        "Genotype(normal={[]: 1}, reduce=[])",
        "Genotype(normal=" + "[" * 500 + "]" * 500 + ", reduce=[])",
        "Genotype(normal=" + "-" * 5000 + "1, reduce=[])",
        "Genotype\0(normal=[])",
    ],
)
def test_malicious_text_is_refused_and_not_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        SPACE.read(text)
    assert not list(tmp_path.iterdir())


def test_with_every_edge_kept_none_is_an_answer():
    space = SPACE.replace(inputs=None)
    arch = Arch({d.name: "none" if i % 3 else "skip_connect" for i, d in enumerate(space.decisions)})
    assert space.read(space.write(arch)) == arch


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"options": "dart"}, "Did you mean 'darts'"),
        ({"cells": 0}, "`cells` must be from 1 to 1,000; got 0"),
        ({"inputs": 3}, "`inputs` must be from 1 to 2; got 3"),
        ({"width": 16, "partial": 3}, "`width` cannot be split into `partial` parts; got 16 and 3"),
        ({"width": 5, "stem": "imagenet"}, "must be even"),
    ],
)
def test_fields_out_of_range_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        Darts(**fields)


def test_a_genotype_that_says_more_than_is_read_is_refused():
    text = Darts().write(Darts().read("DARTS_V2"))
    for wrong, said in (
        (text.replace("normal_concat=range(2, 6)", "normal_concat=[4, 5]"), r"normal_concat=\[4, 5\]"),
        (text.replace("reduce_concat=range(2, 6)", "reduce_concat=range(3, 6)"), r"reduce_concat=\[3, 4, 5\]"),
        (text[:-1] + ", extra=[1])", "'extra', which is not known"),
    ):
        assert wrong != text
        with pytest.raises(UserError, match=said):
            Darts().read(wrong)
    assert Darts().read(text.replace("range(2, 6)", "[2, 3, 4, 5]")) == Darts().read("DARTS_V2")


def test_notations_of_released_codes_are_read():
    pairs = Darts().write(Darts().read("DARTS_V2"))
    call = ast.parse(pairs, mode="eval").body
    lists = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg in ("normal", "reduce")}
    weighted = {
        name: [tuple((op, source, 0.25) for op, source in cell[i : i + 2]) for i in range(0, 8, 2)]
        for name, cell in lists.items()
    }
    fair = {name: [(op, 2 + i // 2, source) for i, (op, source) in enumerate(cell)] for name, cell in lists.items()}
    for cells in (weighted, fair):
        text = f"Genotype(normal={cells['normal']}, normal_concat=[2, 3, 4, 5], reduce={cells['reduce']}, reduce_concat=[2, 3, 4, 5])"
        assert Darts().read(text) == Darts().read("DARTS_V2")
        assert Darts().read(f"10/31 02:11:09 AM genotype = {text} (best so far)") == Darts().read("DARTS_V2")
