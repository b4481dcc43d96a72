"""The reader that goes along in every file: it agrees with the library, and refuses what is cut off."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from gapless.core.progress import stream
from gapless.formats.reader import read_safetensors, read_weights

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


@pytest.fixture
def tensors():
    draw = stream("reader")
    found = {f"{k}".removeprefix("torch."): torch.randn(3, 5, generator=draw, dtype=torch.float64).to(k) for k in KINDS}
    found |= {f"{k}".removeprefix("torch."): torch.randint(0, 100, (2, 3, 4), generator=draw).to(k) for k in WHOLE}
    found |= {"bool": torch.tensor([True, False, True]), "empty": torch.empty(0, 3), "number": torch.tensor(7.5)}
    return found


def test_it_agrees_with_the_library(tensors, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors", metadata={"a": "b"})
    ours, theirs = read_safetensors(tmp_path / "w.safetensors"), load_file(tmp_path / "w.safetensors")
    assert set(ours) == set(theirs) == set(tensors)
    for name, value in tensors.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].shape == value.shape
        assert torch.equal(ours[name], value)
        assert torch.equal(theirs[name], value)


def test_without_the_library_its_own_reader_serves(tensors, tmp_path, monkeypatch):
    save_file(tensors, tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["number"], torch.tensor(7.5))


def test_a_file_that_is_cut_off_is_refused(tensors, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    for length in {0, 3, 7, 8, 20, len(data) // 2, len(data) - 1}:
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut"):
            read_safetensors(tmp_path / "cut")
    (tmp_path / "long").write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="longer"):
        read_safetensors(tmp_path / "long")


def test_a_shape_that_does_not_fit_its_numbers_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="a is not of the size"):
        read_safetensors(tmp_path / "w")
