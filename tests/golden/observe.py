"""Observing official code while it runs, and writing what was seen as JSON.

Every observation is passive: a wrapper calls the official function with the same arguments, returns its result, and
keeps a copy.
"""

import contextlib
import json
import math

import torch
from official import commit_of, old_torch, quiet, replaced
from rule import FIRST_IMAGE_ORDINAL, RULE, images, train_labels, valid_labels
from torch import nn

DIGITS = 12  # significant digits of a digest entry; every other number is written in full
ROUNDING = 1e-12
"""What is this much smaller than the largest of its kind is nothing but rounding."""
DIGEST = "[sum, norm, entry at 0, entry at n//2, entry at n-1]"
WEIGHT_COLUMNS = ["ordinal", "name", "shape", "grad", "after"]
BUFFER_COLUMNS = ["batch norm", "running_mean [sum, norm]", "running_var [sum, norm]"]


class Criterion(nn.CrossEntropyLoss):
    """The cross entropy, which also tells a trace its value."""

    def __init__(self, trace):
        super().__init__()
        self.trace = [trace]

    def forward(self, logits, target):
        """The official criterion's value, kept with the current pass."""
        loss = super().forward(logits, target)
        self.trace[0].passes[-1]["loss"] = loss.item()
        return loss


class Trace:
    """What was seen during one step."""

    def __init__(self):
        self.passes = []
        self.clips = []
        self.inside = None

    @contextlib.contextmanager
    def network(self, cls, at_start=None):
        """Keep the logits of every forward pass of an official network class."""
        official_forward = cls.forward

        def forward(module, *args, **kwargs):
            self.inside = {"module": module, "mix": {}}
            self.passes.append(self.inside)
            if at_start is not None:
                at_start(len(self.passes) - 1)
            try:
                logits = official_forward(module, *args, **kwargs)
            finally:
                seen, self.inside = self.inside, None
            seen["logits"] = logits.detach().clone()
            return logits

        with replaced(cls, "forward", forward):
            yield

    def saw_mix(self, kind, mix):
        """Keep a mix that the current pass uses, and let its gradient be kept too."""
        if self.inside is None:
            return
        if mix.requires_grad:
            mix.retain_grad()
        self.inside["mix"].setdefault(kind, []).append(mix)

    @contextlib.contextmanager
    def clipping(self):
        """Keep the gradients that reach a clipping call."""
        clip = nn.utils.clip_grad_norm_

        def observed(parameters, max_norm):
            parameters = list(parameters)
            grads = {id(p): None if p.grad is None else p.grad.detach().clone() for p in parameters}
            total = clip(parameters, max_norm)
            self.clips.append({"max_norm": float(max_norm), "total_norm": float(total), "grads": grads})
            return total

        with replaced(nn.utils, "clip_grad_norm_", observed), replaced(nn.utils, "clip_grad_norm", observed):
            yield

    def described_passes(self, names, with_grad=()):
        """The passes in order, as plain values; ``with_grad`` names those whose gradient at the mix is wanted.

        A pass may build the same mix for every cell; it is written once, and its gradient is the sum over the uses.
        A pass that repeats the mix of an earlier one has "mix_same_as" (that pass's index) in place of "mix".
        """
        if len(names) != len(self.passes):
            raise ValueError(f"expected {len(names)} passes, saw {len(self.passes)}")
        described = []
        for name, seen in zip(names, self.passes, strict=True):
            row = {"name": name, "loss": seen["loss"], "logits": seen["logits"].tolist()}
            row.update(seen.get("extra", {}))
            for uses in seen["mix"].values():
                if not all(torch.equal(use, uses[0]) for use in uses):
                    raise ValueError("cells of one kind used different mixes")
            mix = {kind: uses[0].tolist() for kind, uses in seen["mix"].items()}
            same = [index for index, earlier in enumerate(described) if earlier.get("mix") == mix]
            row.update({"mix_same_as": same[0]} if same else {"mix": mix})
            if name in with_grad:
                row["mix_grad"] = {kind: sum(use.grad for use in uses).tolist() for kind, uses in seen["mix"].items()}
            described.append(row)
        return described


@contextlib.contextmanager
def around_step(optimizer, before, after=None):
    """Call ``before`` before, and ``after`` after, every step of an optimizer."""
    official_step = optimizer.step

    def step(*args, **kwargs):
        before()
        result = official_step(*args, **kwargs)
        if after is not None:
            after()
        return result

    optimizer.step = step
    try:
        yield
    finally:
        del optimizer.step


@contextlib.contextmanager
def golden_environment():
    """Old PyTorch behaviour, no official output."""
    with old_torch(), quiet():
        yield


def batches(step, batch, size):
    """The one-batch train and valid queues of a step, counted from 0."""
    ordinal = FIRST_IMAGE_ORDINAL + 2 * step
    train = [(images(ordinal, batch, size), train_labels(batch))]
    valid = [(images(ordinal + 1, batch, size), valid_labels(batch))]
    return train, valid


def rounded(value):
    """A number to DIGITS significant digits."""
    return float(f"{float(value):.{DIGITS}g}")


def digest(tensor):
    """A short description of a tensor; see DIGEST."""
    flat = tensor.detach().reshape(-1)
    return [rounded(v) for v in (flat.sum(), flat.norm(), flat[0], flat[flat.numel() // 2], flat[-1])]


def weight_table(named_weights, grads=None, extra=None):
    """Digest every ordinary weight, with its gradient (by ``id``) where there is one.

    ``extra`` is a (column name, function of the weight) pair.
    """
    columns = list(WEIGHT_COLUMNS) + ([extra[0]] if extra else [])
    rows = []
    for ordinal, (name, weight) in enumerate(named_weights):
        grad = None if grads is None else grads[id(weight)]
        row = [ordinal, name, list(weight.shape), None if grad is None else digest(grad), digest(weight)]
        rows.append(row + ([extra[1](weight)] if extra else []))
    return {"digest": DIGEST, "columns": columns, "rows": rows}


def buffer_table(model):
    """Digest the running statistics of every batch norm."""
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            statistics = (module.running_mean, module.running_var)
            rows.append([name, *([rounded(s.sum()), rounded(s.norm())] for s in statistics)])
    return {"columns": BUFFER_COLUMNS, "rows": rows}


def moved_buffer_table(model):
    """Digest the running statistics of every batch norm that ran; a mean that is nothing but rounding (that of a sum
    whose terms have mean zero) is None."""
    table = buffer_table(model)
    ran = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.num_batches_tracked}
    rows = [row for row in table["rows"] if row[0] in ran]
    largest = max(mean[1] for _, mean, _ in rows)
    table["rows"] = [[n, mean if mean[1] > ROUNDING * largest else None, variance] for n, mean, variance in rows]
    return table


def plain(matrices):
    """Tensors by kind as nested lists; a list of tensors is joined along the rows."""
    joined = {kind: torch.cat(list(m)) if not torch.is_tensor(m) else m for kind, m in matrices.items()}
    return {kind: matrix.detach().tolist() for kind, matrix in joined.items()}


def provenance(repository, checkout, recorder):
    """Where the numbers of a case come from."""
    return {
        "repository": repository,
        "commit": commit_of(checkout),
        "torch": torch.__version__,
        "recorder": recorder,
        "rule": RULE,
    }


def write(folder, case, content):
    """Write one case; the layout keeps rows of numbers on one line."""
    text = _render({"case": case, **content}, 0) + "\n"
    path = folder / f"{case}.json"
    path.write_text(text)
    return path


def _render(value, depth):
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a golden value is not finite")
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_render(item, depth + 1)}" for key, item in value.items()]
        return _block(items, "{}", depth)
    if isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value):
        if depth > 1 and _is_row(value):
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
        return _block([_render(item, depth + 1) for item in value], "[]", depth)
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _is_row(value):
    """A table row: a list that mixes scalars with flat lists."""
    return any(not isinstance(item, (list, dict)) for item in value) and not any(isinstance(v, dict) for v in value)


def _block(items, brackets, depth):
    outer, inner = " " * min(depth, 2), " " * min(depth + 1, 2)
    return brackets[0] + "\n" + ",\n".join(inner + item for item in items) + "\n" + outer + brackets[1]
