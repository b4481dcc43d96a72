"""The laws of a benchmark table: ``law(load)``, where ``load()`` reads it afresh.

Give them the file itself, or a part of it: the laws look at every row, and rank a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable
from gapless.testing.examples import Ragged

Load = Callable[[], BenchmarkTable]
TableLaw = Callable[[Load], None]
SAMPLE = 20


def every_row_is_an_architecture_of_the_space(load: Load) -> None:
    """Every row parses to an architecture of the table's space, which is written and looked up as that row."""
    table = load()
    for place, key in enumerate(table.archs):
        arch = table.parse(key)
        table.space.check(arch)
        assert table.key(arch) == key, f"{key} is looked up as {table.key(arch)}"
        assert table.find(arch) == place, f"{key} stands at {place} and is found at {table.find(arch)}"


def rank_and_percentile_agree_with_sorting(load: Load) -> None:
    """The rank is the place among the sorted values, ties at the best of their places; the percentile is the share of
    rows that come after all ties."""
    table = load()
    for name, column in table.columns.items():
        order = sorted(column.values.tolist(), reverse=column.higher_is_better)
        for arch in _rows(table):
            value, ties = table.value(arch, name), order.count(table.value(arch, name))
            first = order.index(value)
            rank, percentile = table.rank(arch, name), table.percentile(arch, name)
            assert rank == 1 + first, f"by {name}, {value} has rank {rank}, and is number {1 + first} when sorted"
            expected = 100 * (len(order) - first - ties) / len(order)
            assert abs(percentile - expected) < 1e-9, f"by {name}, {value} has percentile {percentile}, not {expected}"


def the_best_is_rank_1(load: Load) -> None:
    """The best architecture of every column has rank 1, and no value is better than its."""
    table = load()
    for name, column in table.columns.items():
        best = table.best(name)
        assert table.rank(best, name) == 1, f"the best by {name} has rank {table.rank(best, name)}"
        extreme = max(column.values.tolist()) if column.higher_is_better else min(column.values.tolist())
        assert table.value(best, name) == extreme, f"the best by {name} has {table.value(best, name)}, not {extreme}"


def every_column_is_explained(load: Load) -> None:
    """Columns have a unit, a direction and a value for every row; an accuracy is a percentage of which more is better.
    The columns that the table names exist and suit what they are named for."""
    table = load()
    for name, column in table.columns.items():
        assert column.name == name, f"the column {name} is called {column.name}"
        assert column.unit, f"{name} has no unit"
        assert isinstance(column.higher_is_better, bool), f"{name} does not say whether more is better"
        assert column.values.shape == (len(table.archs),), f"{name} has not one value for each row"
        assert column.values.isfinite().all(), f"values of {name} are missing"
        if column.is_accuracy:
            low, high = float(column.values.min()), float(column.values.max())
            assert 0 <= low < high <= 100, f"{name} is from {low} to {high}, which are no percentages"
            assert high > 1, f"{name} is at most {high}: a fraction, and no percentage"
        if column.repeated_by:
            assert column.repeated_by in table.columns, (
                f"{name} is repeated by {column.repeated_by}, which is no column"
            )
    for role in ("default_column", "search_column"):
        named = getattr(table, role)
        assert named in table.columns, f"{role} is {named}, which is no column"
        assert table.columns[named].is_accuracy, f"{role} is {named}, which holds no accuracies"
    assert not table.columns[table.search_column].test, "by default a search goes by test accuracies"


def rows_and_single_values_agree(load: Load) -> None:
    """A row holds every column, and the values that are looked up one by one, to four decimals."""
    table = load()
    for arch in _rows(table):
        row = table.row(arch)
        assert list(row) == list(table.columns), "a row lacks columns"
        for name, value in row.items():
            assert abs(value - table.value(arch, name)) <= 5e-5, f"{name} is {value} in the row"


def what_it_lacks_is_refused(load: Load) -> None:
    """An architecture that the table does not hold, an unknown column and another space are refused in a sentence that
    says so."""
    table = load()
    name = table.default_column
    missing = next((arch for arch in _drawn(table.space) if table.find(arch) is None), None)
    if missing is not None:
        for ask in (table.row, partial(table.rank, column=name), partial(table.value, column=name)):
            _refused(partial(ask, missing), table.key(missing), "an architecture that it lacks")
    _refused(lambda: table.column("no such column"), name, "a column that it lacks")
    _refused(lambda: table.check(Ragged(), "this is of"), table.space.label, "another space")


def it_holds_its_own_space(load: Load) -> None:
    """It holds the architectures of its space at every depth and width, and of no other space."""
    table = load()
    assert table.space.label, "its space has no label"
    assert table.holds(table.space), "it does not hold its own space"
    for name in table.space.scale:
        other = table.space.replace(**{name: 2 * getattr(table.space, name)})
        assert table.holds(other), f"it does not hold its space with another {name}"
    assert not table.holds(Ragged()), "it holds the architectures of another space"


def the_same_file_says_the_same(load: Load) -> None:
    """Read twice, it has the same rows, columns and values, and the same fingerprints, which differ between columns of
    different values."""
    one, other = load(), load()
    assert one.archs == other.archs, "read again, it has other rows"
    assert list(one.columns) == list(other.columns), "read again, it has other columns"
    for name, column in one.columns.items():
        again = other.columns[name]
        assert column.values.equal(again.values), f"read again, {name} has other values"
        assert (column.unit, column.higher_is_better) == (again.unit, again.higher_is_better), f"{name} has changed"
        assert one.fingerprint(name) == other.fingerprint(name), f"read again, {name} has another fingerprint"
    values = {tuple(column.values.tolist()) for column in one.columns.values()}
    assert len({one.fingerprint(name) for name in one.columns}) == len(values), "columns have the same fingerprint"


def folded_architectures_are_one_row(load: Load) -> None:
    """Architectures that are looked up under one key are one row: the row's own architecture has that key, and the
    same values, rank and percentile."""
    table = load()
    for arch in (*_drawn(table.space), *_rows(table)):
        place = table.find(arch)
        if place is None:
            continue
        own = table.parse(table.archs[place])
        assert table.key(own) == table.key(arch), f"{arch} is looked up as {own}, which has another key"
        assert table.row(own) == table.row(arch), f"{arch} and {own} are one row with two sets of values"
        name = table.default_column
        assert table.rank(own, name) == table.rank(arch, name), f"{arch} and {own} are one row with two ranks"


def it_says_what_it_is(load: Load) -> None:
    """The class has a label, a source and a description of its files, and knows the parameters of its rows."""
    table = load()
    for name in ("label", "source", "looks_like", "noun"):
        assert getattr(table, name), f"{type(table).__name__}.{name} is empty"
    assert table.params.shape == (len(table.archs),), "it has not one number of parameters for each row"
    assert int(table.params.min()) > 0, "an architecture has no parameters"


def _rows(table: BenchmarkTable) -> list[Arch]:
    """Return the architectures of some rows, the first and the last among them."""
    count = len(table.archs)
    places = sorted({0, count - 1, *range(0, count, max(1, count // SAMPLE))})
    return [table.parse(table.archs[place]) for place in places]


def _drawn(space: Space) -> Iterator[Arch]:
    """Yield random architectures of a space."""
    return (space.sample(stream("table law", i)) for i in range(10 * SAMPLE))


def _refused(ask: Callable[[], object], named: str, what: str) -> None:
    said = ""
    try:
        ask()
    except UserError as error:
        said = str(error)
    assert said, f"{what} is not refused"
    assert named in said, f"{what} is refused by {said!r}, which does not name {named}"


TABLE_LAWS: tuple[TableLaw, ...] = (
    every_row_is_an_architecture_of_the_space,
    rank_and_percentile_agree_with_sorting,
    the_best_is_rank_1,
    every_column_is_explained,
    rows_and_single_values_agree,
    what_it_lacks_is_refused,
    it_holds_its_own_space,
    the_same_file_says_the_same,
    folded_architectures_are_one_row,
    it_says_what_it_is,
)
