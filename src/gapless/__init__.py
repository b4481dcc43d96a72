"""Gapless finds a neural architecture inside one weight-sharing supernet, and says how far the answer can be trusted.

>>> import gapless
>>> cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
>>> gapless.evaluate(cell)["params"]
1288506

What a method, a space, a searcher or a score is written with is here (``from gapless import Method, Mix, Plan``), and a
function for each command (``gapless.search``, ``gapless.evaluate`` ...). Everything is imported when it is first used.
"""

from typing import TYPE_CHECKING

from gapless.core.lazy import attributes

if TYPE_CHECKING:
    from gapless.core.bound import Bound
    from gapless.core.catalogue import trusting
    from gapless.core.cell import Cell, CellSpec, Edge
    from gapless.core.choose import Choose
    from gapless.core.decision import Arch, Decision, Keep
    from gapless.core.errors import UserError
    from gapless.core.judge import Judge
    from gapless.core.method import Method, OneShot, Seen, Setting, living, start
    from gapless.core.mix import Mix
    from gapless.core.op import AvgPool, Conv, Depthwise, Halves, MaxPool, Noise, Norm, NormRule, Op, Relu, Zero
    from gapless.core.pick import Bench
    from gapless.core.plan import Adam, Plan, Stage, Train
    from gapless.core.progress import Progress, stream
    from gapless.core.protocol import Protocol
    from gapless.core.sampling import uniform
    from gapless.core.searcher import Searcher, explore
    from gapless.core.space import Space
    from gapless.core.table import BenchmarkTable, Column
    from gapless.engine.search import Search
    from gapless.engine.supernet import Supernet
    from gapless.runs.recipe import Recipe
    from gapless.runs.run import Run
    from gapless.studies.check import check
    from gapless.studies.compare import compare
    from gapless.studies.diagnose import diagnose
    from gapless.studies.evaluate import evaluate
    from gapless.studies.export import export
    from gapless.studies.gap import gap
    from gapless.studies.listing import listing as list
    from gapless.studies.report import report
    from gapless.studies.resume import resume
    from gapless.studies.retrain import retrain
    from gapless.studies.search import search
    from gapless.studies.show import figures, show
    from gapless.studies.tables import import_table, show_table
else:
    __getattr__, __dir__ = attributes(__name__, __file__)

__version__ = "0.1.0"
__all__ = [
    "Adam",
    "Arch",
    "AvgPool",
    "Bench",
    "BenchmarkTable",
    "Bound",
    "Cell",
    "CellSpec",
    "Choose",
    "Column",
    "Conv",
    "Decision",
    "Depthwise",
    "Edge",
    "Halves",
    "Judge",
    "Keep",
    "MaxPool",
    "Method",
    "Mix",
    "Noise",
    "Norm",
    "NormRule",
    "OneShot",
    "Op",
    "Plan",
    "Progress",
    "Protocol",
    "Recipe",
    "Relu",
    "Run",
    "Search",
    "Searcher",
    "Seen",
    "Setting",
    "Space",
    "Stage",
    "Supernet",
    "Train",
    "UserError",
    "Zero",
    "check",
    "compare",
    "diagnose",
    "evaluate",
    "explore",
    "export",
    "figures",
    "gap",
    "import_table",
    "list",
    "living",
    "report",
    "resume",
    "retrain",
    "search",
    "show",
    "show_table",
    "start",
    "stream",
    "trusting",
    "uniform",
]
