"""Golden values of ENAS in D-X-Y/AutoDL-Projects, for NAS-Bench-201: what its controller says of given cells, and how its
script turns accuracies into gradients.

The controller draws by ``Categorical.sample``, in whose place given operations stand. The script's loop is run as it
is, over two epochs, with stand-ins: a controller whose log-probabilities and entropies are given numbers, and a network
whose predictions are right for given shares of a batch.
"""

from types import SimpleNamespace
from unittest import mock

import torch
from observe import digest, golden_environment, provenance, write
from official import load
from rule import fill
from torch import nn
from torch.distributions import Categorical

REPOSITORY = "D-X-Y/AutoDL-Projects"
CASES = ("enas_nb201",)
EDGES, OPERATIONS, BATCH = 6, 5, 10
CELLS = ([3, 3, 3, 3, 3, 3], [0, 1, 2, 3, 4, 0], [4, 2, 1, 0, 3, 1])
SAMPLES = {
    "log_prob": [-9.5, -8.0, -10.5, -7.0, -9.0, -6.5],
    "entropy": [9.6, 9.5, 9.4, 9.0, 8.5, 8.0],
    "right": [1, 3, 2, 5, 4, 6],
}
"""Six samples: three in each of two epochs; of ten images so many are right."""


def parameters(controller):
    """Set the weights by the rule, large enough to tell options apart, and return (name, parameter)."""
    named = list(controller.named_parameters())
    for ordinal, (_, p) in enumerate(named):
        p.data.copy_(2 * fill(ordinal, p.shape, "arch"))
    return named


def told(module):
    """Log-probability, entropy and gradients of the first at the controller's parameters, for each cell."""
    found = []
    for cell in CELLS:
        controller = module.Controller(EDGES, OPERATIONS)
        named, given = parameters(controller), iter(cell)
        with mock.patch.object(Categorical, "sample", lambda self, given=given: torch.tensor([[next(given)]])):
            log_prob, entropy, written = controller()
        assert written == cell
        log_prob.backward()
        found.append(
            {
                "cell": cell,
                "log_prob": log_prob.item(),
                "entropy": entropy.item(),
                "gradients": [[name, list(p.shape), digest(p.grad)] for name, p in named],
            }
        )
    return found


class Says(nn.Module):
    """A controller that says given numbers, sample after sample."""

    def __init__(self, numbers):
        super().__init__()
        self.log_prob = nn.Parameter(torch.tensor(numbers["log_prob"]))
        self.entropy = nn.Parameter(torch.tensor(numbers["entropy"]))
        self.count = 0

    def forward(self):
        """Return the next log-probability, entropy and cell."""
        self.count += 1
        return self.log_prob[self.count - 1], self.entropy[self.count - 1], CELLS[0]


class Answers(nn.Module):
    """A network that is right for given shares of its batches."""

    def __init__(self, right):
        super().__init__()
        self.right, self.count = right, 0
        self.module = SimpleNamespace(update_arch=lambda cell: None)

    def forward(self, images):
        """Return features and logits."""
        self.count += 1
        label = (torch.arange(BATCH) >= self.right[self.count - 1]).long()
        return None, nn.functional.one_hot(label, 10).double()


def percent(logits, labels, topk):
    """Return the share of right predictions in percent, twice: the script's own reshapes as current PyTorch does not
    allow."""
    right = (logits.argmax(dim=1) == labels).double().mean().view(1) * 100
    return right, right


def rewarded(script):
    """What the script's loop does with the samples: gradients at log-probabilities and entropies, and the baseline that
    it carries over, epoch by epoch."""
    says, answers = Says(SAMPLES), Answers(SAMPLES["right"])
    steps = len(SAMPLES["right"]) // 2
    config = SimpleNamespace(ctl_train_steps=1, ctl_num_aggre=steps, ctl_entropy_w=1e-4, ctl_bl_dec=0.99, baseline=None)
    batches = [(torch.zeros(BATCH, 3), torch.zeros(BATCH, dtype=torch.long))] * steps
    logger, found = SimpleNamespace(log=lambda text: None), []
    optimizer = torch.optim.SGD(says.parameters(), lr=0.0)
    for _ in range(2):
        grads = {}

        def keep(parameters, limit, grads=grads):
            grads |= {name: p.grad.tolist() for name, p in says.named_parameters()}
            return torch.zeros(())

        patches = (
            mock.patch.object(torch.nn.utils, "clip_grad_norm_", keep),
            mock.patch.dict(vars(script), obtain_accuracy=percent),
        )
        with patches[0], patches[1]:
            *_, config.baseline = script.train_controller(
                batches, answers, says, None, optimizer, config, "golden", 1000, logger
            )
        found.append({"gradients": grads, "baseline": config.baseline})
    return found


def record(case, checkout, folder):
    """Record the case."""
    module, _ = load(checkout, ["xautodl/models/cell_searchs"], "search_model_enas_utils.py")
    script, _ = load(checkout, ["exps/NAS-Bench-201-algos", "."], "ENAS.py")
    with golden_environment():
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_enas.py"),
            "settings": {"temperature": 5.0, "squash": 2.5, "entropy_weight": 1e-4, "decay": 0.99, "batch": BATCH},
            "controller": told(module),
            "samples": SAMPLES,
            "epochs": rewarded(script),
        }
    return [write(folder, case, content)]
