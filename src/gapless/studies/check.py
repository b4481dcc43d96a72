"""Whether images of one's own can be used, and what would be made of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from gapless.core.errors import UserError
from gapless.core.machine import free_memory
from gapless.core.settings import typed
from gapless.data import ImageData, load
from gapless.data.survey import Survey, survey
from gapless.studies.device import device_of


def check(data: str | Path, *, device: str = "auto", **settings: Any) -> dict[str, Any]:
    """Return what a set of images holds, what would be used of it, and why it cannot be used, if so.

    Every image is decoded, and then the set is loaded as a search would load it: what is said to be usable loads.

    Parameters
    ----------
    data
        A folder, a name on the Hugging Face hub, or ``digits``.
    device
        ``auto``, ``cpu``, ``cuda`` ...: where the images would lie.
    settings
        Of ``gapless.data.load``: ``size=32`` and so on.

    Returns
    -------
    dict
        ``usable``; ``error``, the sentence with which ``load`` or the memory refuses, or None; ``found``, the fields of
        :class:`gapless.data.survey.Survey`, or None where there is no set at all; ``memory``: ``bytes`` needed,
        ``free`` and ``device``; ``used``, or None where nothing can be: images of both splits, ``size`` [height, width]
        that the network sees, ``stored`` size, ``channels``, ``mean``, ``std``, ``augment``, ``fingerprint``.

    Raises
    ------
    UserError
        For an unknown device or a setting that does not exist or has another type.
    """
    place = device_of(device)
    settings = typed(load, settings, of="data")
    found: Survey | None = None
    memory: dict[str, Any] | None = None
    used: ImageData | None = None
    error: str | None = None
    try:
        found = survey(data, **{name: settings[name] for name in ("label", "image") if name in settings})
        need = _estimate(found, settings)
        memory = _memory(need, torch.device("cpu"))  # reading fills the memory of the host, whatever the device
        if not memory["fits"]:
            raise UserError(_too_large(memory, found, settings))
        used = load(data, **settings)
        memory = _memory(
            sum(x.nbytes for split in (used.train, used.test) for x in (split.pixels, split.labels)), place
        )
        if not memory["fits"]:
            raise UserError(_too_large(memory, found, settings))
    except UserError as wrong:
        error = str(wrong)
    return {
        "data": str(data),
        "usable": error is None,
        "error": error,
        "found": None if found is None else dataclasses.asdict(found),
        "memory": memory,
        "used": None if used is None else _used(used),
    }


def _used(data: ImageData) -> dict[str, Any]:
    return {
        "source": data.source,
        "train": len(data.train),
        "test": len(data.test),
        "classes": len(data.classes),
        "size": list(data.size),
        "stored": list(data.train.pixels.shape[2:]),
        "channels": data.channels,
        "mean": list(data.mean),
        "std": list(data.std),
        "augment": dataclasses.asdict(data.augment),
        "fingerprint": data.fingerprint,
    }


def _estimate(found: Survey, settings: dict[str, Any]) -> int:
    """Return the bytes that the images would take, where sizes allow to say; else 0."""
    side = settings.get("stored") or settings.get("size")
    if found.sizes is None or (side is None and found.sizes.distinct > 1):
        return 0
    pixels = side * side if side else found.sizes.largest[0] * found.sizes.largest[1]
    return sum(_counts(found, settings)) * (found.channels * pixels + 8)  # 8 for the label


def _counts(found: Survey, settings: dict[str, Any]) -> list[int]:
    """Return how many training and test images are asked for."""
    splits = (("train_images", sum(found.train)), ("test_images", sum(found.test)))
    return [min(have, settings.get(name) or have) for name, have in splits]


def _memory(need: int, device: torch.device) -> dict[str, Any]:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return {"bytes": need, "free": free, "device": str(device), "fits": free is None or need <= free}


def _too_large(memory: dict[str, Any], found: Survey, settings: dict[str, Any]) -> str:
    """Return the sentence for images that do not fit, with what would."""
    need, free = memory["bytes"], memory["free"]
    assert found.sizes is not None
    side = settings.get("stored") or settings.get("size") or min(found.sizes.largest)
    share = 0.8 * free / need  # leaves room for the network
    smaller = "stored" if settings.get("stored") else "size"
    fewer = int(share * sum(_counts(found, settings)))
    return (
        f"The images take {in_units(need)}, and {memory['device']} has {in_units(free)} free; all of them have to lie "
        f"there. Try a `{smaller}` of {max(1, int(side * share**0.5))}, or {fewer:,} images in all with "
        "`train_images` and `test_images`, or a device with more memory."
    )


def in_units(count: int) -> str:
    """Return a number of bytes in the units of memory.

    >>> in_units(614_400)
    '600.0 KiB'
    """
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
