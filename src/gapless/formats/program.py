"""Format ``torch``: a program of ``torch.export``, which PyTorch runs without the source of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gapless.core.errors import UserError
from gapless.formats.model import Model
from gapless.formats.silence import silence

FILE = "model.pt2"


def write(model: Model, folder: Path) -> dict[str, Any]:
    """Write ``model.pt2``; it maps images [N, C, H, W], for any N, to logits [N, classes], in evaluation mode.

    Returns
    -------
    dict
        ``difference``: 0.0, for the file that is read back gives the same logits bit for bit.

    Raises
    ------
    UserError
        Where the network cannot be exported, or the file gives other logits.
    """
    path = folder / FILE
    try:
        with silence(), torch.no_grad():
            program = torch.export.export(
                model.network, (model.images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
            torch.export.save(program, path)
            copy = torch.export.load(path).module()
            same = all(torch.equal(model.logits(copy, n), model.logits(model.network, n)) for n in (1, 3))
    except Exception as error:  # tracing runs code of the network: anything may go wrong
        line = next(iter(str(error).splitlines()), type(error).__name__)[:300].rstrip(".")
        raise UserError(f"torch.export cannot export this network: {line}. Try the `format` py.") from error
    if not same:
        raise UserError("The exported program gives other logits than the network; nothing was written.")
    return {"difference": 0.0}
