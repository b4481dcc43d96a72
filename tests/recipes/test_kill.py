"""Every method and a training, killed with SIGKILL at random moments and during writes, against uninterrupted runs."""

import pytest
from killing import finish, killed_and_resumed, outcome
from test_real_runs import VARIANTS

pytestmark = pytest.mark.recipe
COMMON = ("--data", "digits", "--data.train_images", 300, "--train.batch", 32, "--threads", 1, "--save_every", 1e-9)
SPACES = {
    "nasbench201": ("--space", "nasbench201", "--space.width", 8, "--space.cells", 1, "--epochs", 4),
    "darts": ("--space", "darts", "--space.width", 12, "--space.cells", 3, "--epochs", 2),
}


@pytest.mark.parametrize("at", ["any", "write"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "random"])
def test_search(variant, space, at, tmp_path):
    settings = {**VARIANTS[variant]}
    method = ["--method", settings.pop("name")]
    for name, value in settings.items():
        values = () if value is True else value if isinstance(value, tuple) else (value,)
        method += [f"--method.{name}", *values]
    begin = ("search", *SPACES[space], *method, *COMMON)
    finish(*begin, "--out", tmp_path / "whole")
    assert killed_and_resumed(begin, tmp_path / "killed", seed=len(variant), kills=3, at=at)
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    for name, value in one.items():
        assert other[name] == value, name


@pytest.mark.parametrize("at", ["any", "write"])
def test_retrain(at, tmp_path):
    begin = (
        "retrain", "DARTS_V2", "--space.cells", 3, "--space.width", 4, "--data", "digits", "--data.train_images", 300,
        "--epochs", 3, "--retrain.batch", 32, "--retrain.ema", 0.9, "--threads", 1, "--save_every", 1e-9,
    )  # fmt: skip
    finish(*begin, "--out", tmp_path / "whole")
    assert killed_and_resumed(begin, tmp_path / "killed", seed=1, kills=3, at=at)
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    for name, value in one.items():
        assert other[name] == value, name
