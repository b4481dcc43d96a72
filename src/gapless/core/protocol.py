"""How an architecture is trained on its own: retraining protocols, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from gapless.core.settings import (
    Epochs,
    HueTurns,
    Magnitude,
    Natural,
    NonNegative,
    Operations,
    Portion,
    Range,
    Share,
    Whole,
)
from gapless.core.training import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Protocol(TrainingSettings):
    """Training of one network. The defaults are those of DARTS on CIFAR-10 (arXiv 1806.09055, released code).

    Parameters
    ----------
    drop_path
        Chance that an edge which is no identity is dropped, at the end of training; it grows linearly from 0.
    aux_weight
        Weight of the auxiliary head's loss, where the space has such a head. 0: no head.
    ema
        Decay of an exponential moving average of weights and statistics, which is then what is tested and kept. 0: no
        average.
    mixed
        Whether a GPU trains in bfloat16 under autocast; parameters stay float32.
    cutout
        Side of the square that is cut out of training images, as a share of the image's side.
    crop_scale
        Smallest share of the image's area that a random resized crop covers. 0: no such crops.
    stored
        Side to which images are stored, relative to the side that the network sees, where the data's ``size`` is given.
    jitter
        Strength of changes of brightness, contrast, saturation, hue.
    randaugment
        Number of operations and their magnitude (RandAugment, arXiv 1909.13719). 0, 0: none.
    test_every
        Epochs between two measurements on the test images; the last epoch's is the one reported. 0: that one alone.
    """

    of: ClassVar[str] = "retrain"
    epochs: Epochs = 600
    batch: Natural = 96
    lr_min: NonNegative = 0.0
    drop_path: Portion = 0.2
    aux_weight: NonNegative = 0.4
    ema: Portion = 0.0
    mixed: bool = False
    cutout: Share = 0.5
    crop_scale: Share = 0.0
    stored: Annotated[float, Range(1, 100)] = 1.0
    jitter: tuple[NonNegative, NonNegative, NonNegative, HueTurns] = (0.0, 0.0, 0.0, 0.0)
    randaugment: tuple[Operations, Magnitude] = (0, 0)
    test_every: Whole = 1

    def images(self, size: int | None) -> dict[str, Any]:
        """Return the settings of the data that this protocol brings, for images whose size is asked to be ``size``."""
        found: dict[str, Any] = {}
        if size is not None and self.stored > 1:
            found["stored"] = round(self.stored * size)
        if self.crop_scale:
            found |= {"crop_scale": self.crop_scale, "pad": 0}
        if any(self.jitter):
            found["jitter"] = self.jitter
        if any(self.randaugment):
            found["randaugment"] = self.randaugment
        return found


PROTOCOLS: dict[str, tuple[str, Protocol]] = {
    "cifar": ("DARTS on CIFAR, arXiv 1806.09055, quark0/darts, cnn/train.py", Protocol()),
    "imagenet": (
        "the mobile ImageNet protocol of PC-DARTS and DrNAS, arXiv 1907.05737 and 2006.10355: DARTS's with large "
        "batches and a linear rate",
        Protocol(
            epochs=250,
            batch=1024,
            lr=0.5,
            schedule="linear",
            lr_warmup=5,
            weight_decay=3e-5,
            drop_path=0.0,
            label_smoothing=0.1,
            cutout=0.0,
            crop_scale=0.08,
            stored=256 / 224,
            jitter=(0.4, 0.4, 0.4, 0.2),
        ),
    ),
    "shufflenet": (
        "Single Path One-Shot on ImageNet, arXiv 1904.00420, megvii-model/SinglePathOneShot, src/Evaluation: its "
        "300,000 steps as 240 epochs; its images are not normalised, ours are",
        Protocol(
            epochs=240,
            batch=1024,
            lr=0.5,
            schedule="straight",
            lr_per="step",
            weight_decay=4e-5,
            decay_norms=False,
            clip=0.0,
            drop_path=0.0,
            aux_weight=0.0,
            label_smoothing=0.1,
            cutout=0.0,
            crop_scale=0.08,
            stored=256 / 224,
            jitter=(0.4, 0.4, 0.4, 0.0),
        ),
    ),
    "proxyless": (
        "ProxylessNAS on ImageNet, arXiv 1812.00332, mit-han-lab/proxylessnas, search/imagenet_run_exp.py, where the "
        "classifier's bias decays, too",
        Protocol(
            epochs=300,
            batch=256,
            lr=0.05,
            lr_per="step",
            nesterov=True,
            weight_decay=4e-5,
            decay_norms=False,
            clip=0.0,
            drop_path=0.0,
            aux_weight=0.0,
            label_smoothing=0.1,
            cutout=0.0,
            crop_scale=0.08,
            stored=256 / 224,
            jitter=(0.4, 0.4, 0.4, 0.1),
        ),
    ),
    "nasbench201": (
        "NAS-Bench-201, arXiv 2001.00326: what its tables were made with",
        Protocol(
            epochs=200,
            batch=256,
            lr=0.1,
            nesterov=True,
            weight_decay=5e-4,
            clip=0.0,
            drop_path=0.0,
            aux_weight=0.0,
            cutout=0.0,
        ),
    ),
    "photos": (
        "our own choice for photographs, of known parts: cosine rate with warm-up, label smoothing, no decay on norms "
        "(arXiv 1812.01187), RandAugment (arXiv 1909.13719), a moving average of the weights",
        Protocol(
            epochs=200,
            batch=64,
            lr=0.05,
            lr_per="step",
            lr_warmup=5,
            nesterov=True,
            weight_decay=1e-4,
            decay_norms=False,
            drop_path=0.1,
            label_smoothing=0.1,
            ema=0.999,
            mixed=True,
            cutout=0.0,
            crop_scale=0.35,
            stored=256 / 224,
            randaugment=(2, 9),
        ),
    ),
}
"""Name -> (source, protocol)."""
