"""The inherited accuracy of a supernet as a score."""

import dataclasses
import json
import shutil

import pytest
import torch
from scored import searched

from gapless.core.errors import UserError
from gapless.data import load
from gapless.engine.judge import judge
from gapless.runs.run import Run
from gapless.runs.searched import inherited
from gapless.scores.inherited import InheritedAccuracy
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

CPU = torch.device("cpu")
SPACE = NASBench201(width=4, cells=1, channels=1, size=8)
ARCHS = [SPACE.sample(torch.Generator().manual_seed(seed)) for seed in range(3)]


def of(run, **settings):
    return InheritedAccuracy(SPACE, CPU, run=run.path, **settings)


def watched(scored, arch):
    """Return the images that a judgement of an architecture reads, batch by batch: those that gather statistics, and
    those that are judged."""
    batches, feed = [], scored.bench.feed
    plain = feed.plain

    def watch(index, size=None):
        batches.append([part.tolist() for part in torch.split(index, size or 4 * feed.size)])
        return plain(index, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "plain", watch)
        scored(arch)
    judged, *calibration = batches
    return [i for part in judged for i in part], [part for parts in calibration for part in parts]


@pytest.mark.parametrize("bn", ["recalibrated", "batch", "running"])
def test_it_is_the_accuracy_of_the_network_that_inherits_the_weights(supernet, bn):
    scored = of(supernet, bn=bn, images=100, calibration=3)
    for arch in ARCHS:
        images, parts = watched(scored, arch)
        network = inherited(supernet, arch, SPACE)
        data = load("digits", train_images=300, test_images=40)
        batches = [data.batch(data.train, part) for part in torch.split(torch.tensor(images), 4 * 32)]
        calibration = [data.batch(data.train, torch.tensor(part))[0] for part in parts]
        _, share = judge(network, network, batches, bn=bn, calibration=calibration)
        assert scored(arch) == pytest.approx(100 * share, abs=1.01)  # rounding may move an image


def test_it_judges_by_images_that_the_weights_did_not_see(supernet):
    whole = of(supernet)
    images, calibration = watched(whole, ARCHS[0])
    trained_on = set(whole.bench.feed.weights.tolist())
    assert len(set(images)) == 150
    assert not set(images) & trained_on
    assert {i for part in calibration for i in part} <= trained_on
    assert whole.title == "inherited accuracy on 150 held-out images, run darts"
    few, parts = watched(of(supernet, images=20, calibration=2), ARCHS[0])
    assert len(few) == 20
    assert set(few) < set(images)
    assert [len(part) for part in parts] == [32, 32]
    assert watched(of(supernet, images=20, calibration=2), ARCHS[1])[0] == few


def test_the_policy_for_batch_normalisation_changes_the_score(supernet):
    assert len({tuple(of(supernet, bn=bn)(arch) for arch in ARCHS) for bn in ("recalibrated", "batch", "running")}) > 1


def test_it_settles_space_and_data(supernet):
    settled = InheritedAccuracy.settles(run=supernet.path)
    assert settled.space["name"] == "nasbench201"
    assert settled.space["width"] == 4
    assert settled.data["name"] == "digits"
    assert settled.measured == {"classes": 10, "channels": 1, "size": 8}
    assert len(settled.images["names"]) == 10
    assert InheritedAccuracy.settles() is None


def test_stages_are_followed_to_the_last_and_pruned_options_are_told(tmp_path):
    run = searched(tmp_path / "run", "drnas", progressive=True, warmup=0)
    scored = of(run)
    assert "pruned" in scored.notice
    assert scored.bench.space.partial != 4
    assert scored(ARCHS[0]) == of(run)(ARCHS[0])


def test_weights_that_saw_all_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="trained on all of its images"):
        of(searched(tmp_path / "run", "dropnas"))


def test_what_is_no_finished_search_is_refused(supernet, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(supernet.path, copy)
    with pytest.raises(UserError, match="another space"):
        InheritedAccuracy(Darts(), CPU, run=copy)
    for name, value in (("images", 0), ("calibration", 0)):
        with pytest.raises(UserError, match=f"`{name}` must be at least 1; got 0"):
            of(Run(copy), **{name: value})
    (copy / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="its supernet is gone"):
        of(Run(copy))
    (copy / "manifest.json").unlink()
    (copy / "arch.json").unlink()
    with pytest.raises(UserError, match="gapless resume"):
        of(Run(copy))
    with pytest.raises(UserError, match="is no run"):
        of(Run(tmp_path / "nowhere"))


def test_the_weights_are_in_the_fingerprint(supernet, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(supernet.path, copy)
    before = of(supernet).fingerprint
    assert of(Run(copy)).fingerprint == before
    tensors = Run(copy).weights()
    Run(copy).write_weights({name: t + 1 if t.is_floating_point() else t for name, t in tensors.items()})
    Run(copy).end()
    assert of(Run(copy)).fingerprint != before
    told = json.loads((copy / "arch.json").read_text())
    assert dataclasses.is_dataclass(InheritedAccuracy.settles(run=copy)) and told["images"]["names"]
