"""Format ``onnx``: a file for ONNX runtimes, compared with the network in onnxruntime after it is written."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gapless.core.errors import UserError
from gapless.formats.model import Model
from gapless.formats.silence import silence

FILE = "model.onnx"
TOLERANCE = 1e-4
"""Largest difference that is let pass, relative to the largest logit. Ours: float32 sums in another order differ by
some 1e-6 in networks of twenty cells; a wrong operation differs by far more."""
TOLD = ("classes", "channels", "size", "mean", "std", "names", "trained", "accuracy", "tested_on")
"""Facts that the file carries as JSON, beside ``notation``, ``arch`` and ``space`` as texts."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write(model: Model, folder: Path) -> dict[str, Any]:
    """Write ``model.onnx``: input ``images`` [N, C, H, W] for any N, output ``logits`` [N, classes].

    Returns
    -------
    dict
        ``difference``: the largest absolute difference of logits between onnxruntime and PyTorch, on random images.

    Raises
    ------
    UserError
        Where a package is missing, the network cannot be exported, or the file gives other logits.
    """
    onnx, _, runtime = packages()
    if model.noisy:
        raise UserError(
            "This architecture holds noise, which is drawn anew in every pass; a runtime draws other numbers than "
            "PyTorch, so that the ONNX file could not be checked. Try the `format` torch or py."
        )
    path = folder / FILE
    try:
        with silence():
            torch.onnx.export(
                model.network,
                (model.images(2),),
                path,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:  # the exporter wraps whatever went wrong inside in classes of its own
        raise UserError(
            f"PyTorch cannot export this network to ONNX: {_first_line(error)} Try the `format` torch or py."
        ) from error
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {name: json.dumps(model.facts[name]) for name in TOLD} | _texts(model))
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return {"difference": difference(model, path, runtime)}


def difference(model: Model, path: Path, runtime: ModuleType) -> float:
    """Return the largest absolute difference of logits on one and on three random images.

    Raises
    ------
    UserError
        Where it exceeds :data:`TOLERANCE` of the largest logit.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found, largest = 0.0, 0.0
    for count in (1, 3):
        images = model.images(count)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            wanted = model.network(images)
        found = max(found, float((torch.from_numpy(logits) - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
    if not found <= TOLERANCE * largest:
        raise UserError(
            f"The ONNX file gives other logits than the network: they differ by up to {found:.1e}, and the largest "
            f"logit is {largest:.1e}. Nothing was written. Try the `format` torch or py."
        )
    return found


def packages() -> tuple[ModuleType, ...]:
    """Return the packages that this format needs.

    Raises
    ------
    UserError
        Where one is not installed.
    """
    try:
        with silence():
            return tuple(importlib.import_module(name) for name in PACKAGES)
    except ImportError as error:
        raise UserError(
            f"The `format` onnx needs the package {error.name}, which is not installed: pip install 'gapless[onnx]'"
        ) from None


def _texts(model: Model) -> dict[str, str]:
    return {name: str(model.facts[name]) for name in ("notation", "arch", "space")}


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300].rstrip(".") + "."
