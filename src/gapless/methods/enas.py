"""ENAS: Efficient Neural Architecture Search via Parameter Sharing. Pham, Guan, Zoph, Le, Dean. ICML 2018, arXiv
1802.03268.

An LSTM controller writes an architecture token by token; all architectures share weights. An epoch trains the weights,
each batch under a fresh sample; behind it the controller takes REINFORCE steps on images of its own. The reward of a
sample z is the accuracy of its sub-network on a batch, plus ``entropy`` times the entropy of the controller, and with a
moving baseline b a step descends the mean over ``samples`` samples of

    -log pi(z) (r - b),        b <- b - (1 - decay) (b - r)  after every sample.

Logits are squashed: ``squash * tanh(logits / temperature)``. The answer is the best of ``candidates`` samples by
inherited accuracy.

Where released codes differ: the one in TensorFlow (melodyguan/enas) moves the baseline with every sample, as above. The
one of NAS-Bench-201 (D-X-Y/AutoDL-Projects) holds it during an epoch, and carries only the last sample's value over:
``baseline="per_epoch_last"``; the one of NATS-Bench the mean: ``"per_epoch_mean"``. The advantage is then positive for
nearly all samples, so that whatever is sampled is reinforced. There the entropy in the reward keeps its graph, which
lowers the entropy: ``entropy_grad``. The tokens are the space's option labels; where only some decisions are present,
the controller first names those, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.method import Method, Setting
from gapless.core.mix import Mix
from gapless.core.pick import Bench
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import path, pick
from gapless.core.settings import Natural, NonNegative, Portion, Positive, Whole
from gapless.core.space import Space

HIDDEN, LAYERS = 32, 2
"""Of the LSTM (D-X-Y/AutoDL-Projects, NAS-Bench-201)."""
TRIES = 100
"""Samples that are drawn for one within the limits, before that is given up."""


class Walk(NamedTuple):
    """What the controller wrote: a column per decision or None, log-probability and entropy of its tokens, and [D, O]
    the probabilities of the options where it stood."""

    columns: tuple[int | None, ...]
    log_prob: Tensor
    entropy: Tensor
    probabilities: Tensor


class ENAS(Method):
    """ENAS.

    Parameters
    ----------
    steps
        Number of controller updates after an epoch (D-X-Y/AutoDL-Projects: 50).
    samples
        Number of samples of each controller update (D-X-Y/AutoDL-Projects: 20).
    baseline
        When the moving baseline moves: with every sample (``per_step``), or once an epoch to the last sample's value
        (``per_epoch_last``, D-X-Y/AutoDL-Projects) or to the mean (``per_epoch_mean``, NATS-Bench).
    decay
        Decay of the moving baseline (all released code: 0.99).
    entropy
        Weight of the entropy in the reward (released code: 1e-4).
    entropy_grad
        Whether the entropy in the reward keeps its graph.
    temperature
        Temperature of the logits, ``squash * tanh(logits / temperature)`` (D-X-Y/AutoDL-Projects: 5).
    squash
        Bound of the logits, ``squash * tanh(logits / temperature)`` (D-X-Y/AutoDL-Projects: 2.5).
    candidates
        Number of samples of which the answer is the best (D-X-Y/AutoDL-Projects: 100).
    images
        Number of images by which each candidate is judged, the same for all. 0: all that are held out. (Released code:
        one batch, another one for each, whose noise is larger than what good architectures differ by.)
    arch_lr
        Learning rate of Adam on the controller, betas (0, 0.999), epsilon 1e-3, no decay (D-X-Y/AutoDL-Projects: 1e-3).
    arch_clip
        Bound on the norm of the controller's gradient (D-X-Y/AutoDL-Projects: 5). 0: no bound.
    """

    label: ClassVar[str] = "enas"
    source: ClassVar[str] = "ENAS, Pham, Guan, Zoph, Le and Dean, arXiv 1802.03268"
    settings: ClassVar[Mapping[str, Setting]] = {
        "": Setting(
            "D-X-Y/AutoDL-Projects, exps/NATS-algos/search-cell.py",
            Train(epochs=100, nesterov=True, weight_decay=5e-4, clip=0.0),
        ),
    }

    def __init__(
        self,
        space: Space,
        *,
        steps: Natural = 50,
        samples: Natural = 20,
        baseline: Literal["per_step", "per_epoch_last", "per_epoch_mean"] = "per_step",
        decay: Portion = 0.99,
        entropy: NonNegative = 1e-4,
        entropy_grad: bool = False,
        temperature: Positive = 5.0,
        squash: Positive = 2.5,
        candidates: Natural = 100,
        images: Whole = 0,
        arch_lr: NonNegative = 1e-3,
        arch_clip: NonNegative = 5.0,
    ) -> None:
        super().__init__(space)
        self.space, self.samples, self.update = space, samples, baseline
        self.decay, self.entropy, self.entropy_grad = decay, entropy, entropy_grad
        self.temperature, self.squash = temperature, squash
        self.candidates, self.images = candidates, images
        limited = {name for limit in space.limits for name in limit.among}
        labels = {option for d in space.decisions for option in d.options}
        self.tokens = {name: i for i, name in enumerate([*sorted(labels), *(f"{name}?" for name in sorted(limited))])}
        self.begin_token = nn.Parameter(torch.empty(1, HIDDEN))
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, LAYERS)
        self.embedding = nn.Embedding(len(self.tokens), HIDDEN)
        self.head = nn.Linear(HIDDEN, len(self.tokens))
        for weight in (self.begin_token, self.lstm.weight_hh_l0, self.lstm.weight_ih_l0, self.embedding.weight):
            nn.init.uniform_(weight, -0.1, 0.1)  # type: ignore[arg-type]
        nn.init.uniform_(self.head.weight, -0.1, 0.1)
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("carried", torch.tensor(False))
        self.register_buffer("told", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self._plan = Plan(
            arch_block=steps,
            batches="own",
            arch_moves="all",
            bn="batch",
            arch_clip=arch_clip or None,
            arch=Adam(lr=arch_lr, betas=(0.0, 0.999), decay=0.0, eps=1e-3),
        )

    level: Tensor
    """The baseline."""
    carried: Tensor
    """Whether an epoch has set the baseline."""
    told: Tensor
    """[2]: the last baseline of this epoch, and the sum of all."""
    count: Tensor
    """Samples that were rewarded in this epoch."""

    @property
    def plan(self) -> Plan:
        """Weights in the steps, the controller in a block behind the epoch."""
        return self._plan

    def passes(self, now: Progress) -> int:
        """Return one sample for the weights, ``samples`` for the controller."""
        return self.samples if now.phase == "arch" else 1

    # ------------------------------------------------------------------ the controller

    def walk(self, choose: Callable[[Tensor], int]) -> Walk:
        """Write an architecture; ``choose`` takes log-probabilities [1, n] of the legal tokens and returns which."""
        read: Tensor = self.begin_token
        log_prob = entropy = torch.zeros_like(read[0, 0])
        hidden: tuple[Tensor, Tensor] | None = None
        state: Tensor | None = None

        def step() -> Tensor:
            nonlocal state, hidden
            if state is None:
                state, hidden = self.lstm(read, hidden)
            logits: Tensor = self.head(state)
            return self.squash * (logits / self.temperature).tanh()

        def write(logits: Tensor, legal: list[int]) -> int:
            nonlocal read, state, log_prob, entropy
            log_p = logits[:, legal].log_softmax(dim=-1)
            which = choose(log_p)
            log_prob = log_prob + log_p[0, which]
            entropy = entropy - (log_p.exp() * log_p).sum()
            read, state = self.embedding.weight[[legal[which]]], None
            return which

        present: dict[str, bool] = {}
        columns: list[int | None] = []
        rows: list[Tensor] = []
        for row, d in enumerate(self.space.decisions):
            limit = next((limit for limit in self.space.limits if d.name in limit.among), None)
            if limit is not None and d.name not in present:
                left = list(limit.among)
                for _ in range(limit.count):
                    taken = left.pop(write(step(), [self.tokens[f"{name}?"] for name in left]))
                    present[taken] = True
                present |= dict.fromkeys(left, False)
            free = [column for column in self.active[row] if column in self.readable[row]]
            legal = [self.tokens[d.options[column]] for column in free]
            logits = step()
            p = logits[0, legal].softmax(dim=-1)
            rows.append(torch.zeros(self.space.columns).to(p).index_put((torch.tensor(free),), p))
            columns.append(free[write(logits, legal)] if present.get(d.name, True) else None)
        return Walk(tuple(columns), log_prob, entropy, torch.stack(rows))

    def sample(self, generator: torch.Generator) -> Walk:
        """Draw an architecture."""
        return self.walk(lambda log_p: pick(log_p.exp(), generator)[0])

    def greedy(self) -> Walk:
        """Return the architecture of the most probable tokens."""
        return self.walk(lambda log_p: int(log_p.argmax()))

    # ------------------------------------------------------------------ what the engine asks

    def mix(self, now: Progress) -> Mix:
        """Draw an architecture; evaluation takes the most probable tokens."""
        if now.phase == "arch":
            walk = self.sample(now.stream(device=self.begin_token.device))
            mix = path(walk.columns, walk.probabilities)
            return Mix(mix.weight, mix.active, log_prob=walk.log_prob, entropy=walk.entropy)
        with torch.no_grad():
            judged = now.phase == "judge"
            walk = self.greedy() if judged else self.sample(now.stream(device=self.begin_token.device))
            return path(walk.columns, walk.probabilities)

    def regret(self, mix: Mix, loss: Tensor, accuracy: Tensor) -> Tensor:
        """Return ``-log pi(z) (r - b) / samples``, and move the baseline."""
        assert mix.log_prob is not None
        assert mix.entropy is not None
        entropy = mix.entropy if self.entropy_grad else mix.entropy.detach()
        reward = accuracy.to(entropy) + self.entropy * entropy
        level = self.level.to(reward)
        baseline = level - (1 - self.decay) * (level - reward)
        if self.update != "per_step" and not self.carried:  # in the first epoch these take the sample's own accuracy
            baseline = accuracy.to(reward)
        with torch.no_grad():
            if self.update == "per_step":
                self.level.copy_(baseline)
            self.told.copy_(torch.stack([baseline, self.told[1] + baseline]))
            self.count += 1
        return -mix.log_prob * (reward - baseline) / self.samples

    def begin(self, now: Progress) -> None:
        """Carry the baseline of the last epoch over, where it moves by epochs."""
        if int(self.count) and self.update != "per_step":
            self.level.copy_(self.told[0] if self.update == "per_epoch_last" else self.told[1] / self.count)
            self.carried.fill_(True)
        self.told.zero_()
        self.count.zero_()

    def probabilities(self) -> Tensor:
        """Return the probabilities along the most probable tokens."""
        return self.greedy().probabilities

    def scores(self) -> Tensor:
        """Return the probabilities along the most probable tokens; decisions that are present score one more."""
        walk = self.greedy()
        present = torch.tensor([column is not None for column in walk.columns]).to(walk.probabilities)
        return walk.probabilities + present.unsqueeze(-1)

    def sample_scores(self, generator: torch.Generator) -> Tensor:
        """Return the one-hot of a sample."""
        walk = self.sample(generator)
        return path(walk.columns, walk.probabilities).weight

    def pick(self, bench: Bench) -> Arch:
        """Return the best of ``candidates`` samples within the limits, by accuracy on the same images."""
        best: tuple[float, Arch] | None = None
        for i in range(self.candidates):
            arch = self._within(bench, i)
            if arch is None:
                continue
            accuracy = bench.inherited(arch, self.images or None)
            if best is None or accuracy > best[0]:
                best = accuracy, arch
        return bench.space.decode(self.scores()) if best is None else best[1]

    def _within(self, bench: Bench, number: int) -> Arch | None:
        generator = bench.stream(f"candidate {number}")
        for _ in range(TRIES):
            with torch.no_grad():
                arch = bench.space.decode(self.sample_scores(generator).cpu())
            if bench.respects(arch):
                return arch
        return None


METHOD = ENAS
