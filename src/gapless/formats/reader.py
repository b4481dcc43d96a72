"""Reads a safetensors file with PyTorch alone. These functions are copied into every ``model.py``."""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor


def read_weights(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file, with the package of that name where it is installed."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        return read_safetensors(path)
    found: dict[str, Tensor] = load_file(path)
    return found


def read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file: a header's length in 8 bytes, the header in JSON, numbers in little-endian order."""
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    kinds |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
    kinds |= {"BOOL": torch.bool}
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or len(data) < begin:
        raise ValueError(f"{path} is no safetensors file, or is cut off")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    if begin + max((entry["data_offsets"][1] for entry in header.values()), default=0) != len(data):
        raise ValueError(f"{path} is cut off, or longer than its header says")
    found = {}
    for name, entry in header.items():
        kind, shape, (start, end) = kinds[entry["dtype"]], entry["shape"], entry["data_offsets"]
        part = bytearray(data[begin + start : begin + end])
        if len(part) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{path}: {name} is not of the size that its shape says")
        found[name] = torch.frombuffer(part, dtype=kind).reshape(shape) if part else torch.empty(shape, dtype=kind)
    return found
