"""Golden read-outs: what the official ``genotype()`` methods return for closed-form alphas."""

import torch
from observe import golden_environment, plain, provenance, write
from official import load
from record_darts import ADAPTED
from rule import FIRST_ARCH_ORDINAL, fill

CASES = ("readout",)
RECORDER = "tests/golden/record_readout.py"
PAIRS = ((0, 1), (2, 3), (4, 5))


def set_alphas(matrices, ordinals):
    """Fill architecture matrices, or lists of matrices that are joined along the rows."""
    for matrix, ordinal in zip(matrices, ordinals, strict=True):
        parts = [matrix] if torch.is_tensor(matrix) else list(matrix)
        rows = [len(part) for part in parts]
        joined = fill(FIRST_ARCH_ORDINAL + ordinal, (sum(rows), parts[0].shape[1]), "arch")
        for part, values in zip(parts, joined.split(rows), strict=True):
            part.data.copy_(values)


def darts(checkout):
    """Read-outs of quark0/darts."""
    _, loaded = load(checkout, ["cnn"], "train_search.py", (), ADAPTED)
    rows = []
    for pair in PAIRS:
        model = loaded["model_search"].Network(4, 10, 3, None)
        set_alphas(model.arch_parameters(), pair)
        rows.append(row_of(pair, ("normal", "reduce"), model.arch_parameters(), str(model.genotype())))
    return {"provenance": provenance("quark0/darts", checkout, RECORDER), "rows": rows}


def drnas_darts(checkout, keeps=()):
    """Read-outs of DrNAS in the DARTS space, after pruning to each of ``keeps`` in turn."""
    _, loaded = load(checkout, ["DARTS-space", "."], "train_search.py")
    rows = []
    for pair in PAIRS:
        model = loaded["model_search"].Network(4, 10, 3, None, k=1)
        set_alphas(model.arch_parameters(), pair)
        row = row_of(pair, ("normal", "reduce"), model.arch_parameters())
        for keep in keeps:
            model.pruning(keep)
        if keeps:
            add_pruned(
                row, keeps, ("normal", "reduce"), model.arch_parameters(), (model.mask_normal, model.mask_reduce)
            )
        rows.append(row | {"genotype": str(model.genotype())})
    return {"provenance": provenance("xiangning-chen/DrNAS", checkout, RECORDER), "rows": rows}


def drnas_nb201(checkout, keeps=()):
    """Read-outs of DrNAS in the NAS-Bench-201 space, after pruning to each of ``keeps`` in turn."""
    _, loaded = load(checkout, ["201-space", "."], "train_search.py")
    space = loaded["cell_operations"].NAS_BENCH_201
    rows = []
    for ordinal in range(6):
        model = loaded["search_model"].TinyNetwork(
            C=4, N=1, max_nodes=4, num_classes=10, criterion=None, search_space=space, k=1, species="dirichlet"
        )
        set_alphas(model.arch_parameters(), (ordinal,))
        row = row_of((ordinal,), ("cell",), model.arch_parameters())
        for keep in keeps:
            model.pruning(keep)
        if keeps:
            add_pruned(row, keeps, ("cell",), model.arch_parameters(), (model._mask,))
        rows.append(row | {"genotype": model.genotype().tostr()})
    return {"provenance": provenance("xiangning-chen/DrNAS", checkout, RECORDER), "rows": rows}


def dropnas(checkout):
    """Read-outs of DropNAS."""
    _, loaded = load(checkout, ["."], "search.py", ("--name", "golden", "--dataset", "cifar10"))
    rows = []
    for pair in PAIRS:
        model = loaded["models.search_cnn"].SearchCNNController(16, 3, 4, 10, 3, None, device_ids=[0])
        matrices = (model.alpha_normal, model.alpha_reduce)
        set_alphas(matrices, pair)
        rows.append(row_of(pair, ("normal", "reduce"), matrices, str(model.genotype())))
    return {"provenance": provenance("wiljohnhong/DropNAS", checkout, RECORDER), "rows": rows}


def row_of(ordinals, kinds, matrices, genotype=None):
    """One read-out with the alphas that lead to it."""
    row = {
        "ordinals": [FIRST_ARCH_ORDINAL + ordinal for ordinal in ordinals],
        "alphas": plain(dict(zip(kinds, matrices, strict=True))),
    }
    return row if genotype is None else row | {"genotype": genotype}


def add_pruned(row, keeps, kinds, matrices, masks):
    """Add the state after pruning."""
    row["num_keep"] = list(keeps)
    row["masks"] = {kind: mask.int().tolist() for kind, mask in zip(kinds, masks, strict=True)}
    row["alphas_after_pruning"] = plain(dict(zip(kinds, matrices, strict=True)))


def record(case, checkouts, folder):
    """Record every read-out into one file."""
    with golden_environment():
        content = {
            "darts": darts(checkouts["darts"]),
            "drnas_darts": drnas_darts(checkouts["drnas"]),
            "drnas_darts_pruned": drnas_darts(checkouts["drnas"], (4,)),
            "drnas_nb201": drnas_nb201(checkouts["drnas"]),
            "drnas_nb201_pruned": drnas_nb201(checkouts["drnas"], (3,)),
            "dropnas": dropnas(checkouts["dropnas"]),
        }
    return [write(folder, case, content)]
