"""The names of the official ShuffleNet supernets beside ours; megvii-model/SinglePathOneShot and SNAS-Series/SNAS-Series
use the same."""

import re

from gapless.spaces.shufflenet import OPTIONS

OUTSIDE = {"first_conv": "stem", "conv_last": "head", "classifier.0": "classifier"}


def our_name(official: str) -> str:
    """Translate a name of the official supernet; the layers are the same."""
    found = re.fullmatch(r"features\.(\d+)\.(\d)\.branch_(main|proj)\.(.+)", official)
    if found is not None:
        block, column, branch, rest = found.groups()
        return f"blocks.{block}.{OPTIONS[int(column)]}.{branch.replace('proj', 'projection')}.{rest}"
    start = next(name for name in OUTSIDE if official.startswith(name))
    return OUTSIDE[start] + official.removeprefix(start)


def official_order(name: str) -> tuple:
    """Sort our names of weights as the official ones, which number them: a block's main branch before its
    projection."""
    found = re.match(r"blocks\.(\d+)\.(\w+)\.(main|projection)\.", name)
    if found is None:
        return (("stem", "blocks", "head", "classifier").index(name.split(".")[0]),)
    return 1, int(found[1]), OPTIONS.index(found[2]), found[3]
