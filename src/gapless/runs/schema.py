"""What stands in our own JSON files, as types, and how such a file is read.

Files of a run may be damaged, edited, or come from a stranger: whatever is read is compared with its
type first, and what does not fit is one sentence that names the place and says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from gapless.core import files
from gapless.core.errors import UserError
from gapless.core.text import shown
from gapless.engine.diagnostics import Diagnostics
from gapless.engine.explore import EvaluationRecord
from gapless.engine.record import SearchRecord
from gapless.engine.retrain import TrainingRecord


class ImagesEntry(TypedDict):
    """Images that a network was trained on: class names, mean and deviation per channel."""

    names: list[str]
    mean: list[float]
    std: list[float]


class DecisionFields(TypedDict):
    """A decision of a space."""

    name: str
    options: list[str]
    never: list[str]


class KeepFields(TypedDict):
    """How many of some decisions are present."""

    among: list[str]
    count: int


class PictureFields(TypedDict):
    """A cell to draw."""

    title: str
    nodes: list[str]
    edges: list[tuple[int, int, str]]


class SpaceFields(TypedDict):
    """What is recorded of a space (:mod:`gapless.runs.recorded`)."""

    label: str
    decisions: list[DecisionFields]
    kept: list[KeepFields]
    pictures: list[PictureFields]


class AloneFields(TypedDict):
    """An architecture as it is trained alone."""

    params: int
    macs: int
    start: Literal["fresh", "inherited"]


class ArchFile(TypedDict):
    """``arch.json``."""

    arch: str
    notation: str
    space: str
    classes: int
    channels: int
    size: int | tuple[int, int]
    images: ImagesEntry | None
    alone: AloneFields
    described: SpaceFields
    score: NotRequired[dict[str, Any]]


class MachineFile(TypedDict):
    """``machine.json``."""

    gapless: str
    python: str
    torch: str
    system: str
    processor: str
    instructions: str
    cores: int | None
    threads: int
    gpu: str | None


class JudgedArch(TypedDict):
    """An architecture that a method's read-out judged; accuracy in percent."""

    arch: str
    images: int
    accuracy: float


class JudgedFile(TypedDict):
    """``judged.json``."""

    seconds: float
    on: NotRequired[str]
    archs: list[JudgedArch]


class ResultFile(TypedDict):
    """``result.json``."""

    run: str | None
    arch: str
    notation: str
    params: int
    macs: int
    test_accuracy: float
    test_images: int
    tested_on: NotRequired[str]
    interval_95: list[float]
    test_loss: float
    epochs: int
    seconds: float
    peak_memory_mb: float


class ChainStep(TypedDict):
    """An accuracy of the chain of a gap."""

    name: str
    what: str
    accuracy: float
    seconds: float | None


class SampleEntry(TypedDict):
    """An architecture of the sample of a gap."""

    arch: str
    notation: str
    scores: dict[str, float]
    truth: float | None
    trainings: dict[Literal["small", "full"], list[float]]


class DecisionEntry(TypedDict):
    """How firmly a decision was made."""

    name: str
    entropy: float
    margin: float
    kept: float | None


class GapFile(TypedDict):
    """``gap.json`` (:class:`gapless.studies.gap.Gap`)."""

    run: str
    notation: str
    images: int
    tested: NotRequired[str]
    error: float
    truth: str | None
    chain: list[ChainStep]
    statistics: dict[str, float]
    sample: list[SampleEntry]
    measures: dict[str, dict[str, Any]]
    ceiling: float | None
    small: dict[str, dict[str, Any]] | None
    decisions: list[DecisionEntry]
    fixing: list[tuple[str, float]]
    seeds: dict[str, float] | None
    late: dict[str, int] | None
    seconds: float


class PlaceEntry(TypedDict):
    """A decision whose options' feature maps were compared."""

    place: str
    decision: str
    options: list[str]
    groups: dict[str, str]
    correlation: list[list[float | None]]
    alike: dict[str, float | None]
    clusters: dict[str, list[int]]
    plane: list[tuple[float, float]]


class CourseEntry(TypedDict):
    """What the trace tells a diagnosis."""

    scores: dict[str, list[float | None]]
    gradient_share: dict[str, list[float | None]]
    option_accuracy: dict[str, list[float | None]]
    hessian: list[float | None]
    sharp: int | None
    matthew: dict[str, float] | None


class DiagnosedEntry(TypedDict):
    """One run of a diagnosis."""

    run: str
    method: str
    epochs: int
    part: int
    starts: list[int]
    watched: bool
    groups: dict[str, str]
    places: list[PlaceEntry]
    alike: dict[str, dict[str, float | None]]
    course: CourseEntry


class DiagnosisFile(TypedDict):
    """``diagnose.json`` (:class:`gapless.studies.diagnose.Diagnosis`)."""

    images: int
    runs: list[DiagnosedEntry]
    seconds: float


class AloneEntry(TypedDict):
    """Settings of the trainings from scratch at one size."""

    space: dict[str, Any]
    retrain: dict[str, Any]
    data: dict[str, Any]


AloneFile = dict[str, AloneEntry]
"""``settings.json`` of the folder ``alone``: size -> settings."""


class Damaged(UserError):
    """One of our own files does not hold what it must."""


def parse(content: str, kind: Any, place: str, repair: str) -> Any:
    """Return JSON of a type.

    Parameters
    ----------
    content
        The text.
    kind
        One of the types of this module.
    place
        Where it stands, for the message: a file, or a file and a line.
    repair
        What to do where it does not fit, as a sentence.

    Raises
    ------
    Damaged
        Where the text is no JSON, or not of the type: the place in it is named.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # no JSON, numbers of thousands of digits, deep nesting
        short = f"{error.msg} in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "not JSON"
        raise Damaged(f"{place} is damaged: {short}. {repair}") from None
    check(value, kind, place, repair)
    return value


def check(value: Any, kind: Any, place: str, repair: str) -> None:
    """Compare what was read with a type; see :func:`parse`."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Damaged(f"{place} is damaged: {str(error)[:200]}. {repair}") from None


def check_told(value: Any, place: str, repair: str, *told: Callable[[Any], object]) -> None:
    """Raise :class:`Damaged` where what is of the right types cannot be told, for its parts do not fit together.

    Parameters
    ----------
    value
        What was read.
    place, repair
        See :func:`parse`.
    told
        Functions that tell it, as tables and sentences: each is tried.
    """
    try:
        for tell in told:
            tell(value)
    except (LookupError, TypeError, ValueError, ArithmeticError, StopIteration):
        raise Damaged(f"{place} is damaged: its parts do not fit together. {repair}") from None


def check_record(record: dict[str, Any], place: str, repair: str) -> None:
    """Compare a line of a trace with the record that wrote it; see :func:`parse`.

    A record may lack its ``draws``; what a watched search adds stands beside its other fields.
    """
    if "asked" in record:
        check(record, EvaluationRecord, place, repair)
    elif "test_loss" in record:
        check(record, TrainingRecord, place, repair)
    else:
        check({"draws": [], **record}, SearchRecord, place, repair)
        if "option_accuracy" in record:
            check(record, Diagnostics, place, repair)


def read(path: Path, kind: Any, repair: str) -> Any:
    """Return the content of a JSON file of a type (see :func:`parse`).

    Raises
    ------
    UserError
        Where it cannot be read, or does not hold what it must.
    """
    try:
        content = files.read_text(path)
    except UserError as error:
        raise Damaged(f"{error} {repair}") from None
    return parse(content, kind, shown(path), repair)
