"""Gapless finds a neural architecture inside one weight-sharing supernet, and says how far the answer can be trusted.

>>> import gapless
>>> cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
>>> gapless.evaluate(cell)["params"]
1288506
"""

__version__ = "0.1.0"

from gapless.core.errors import UserError
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies.compare import compare
from gapless.studies.diagnose import diagnose
from gapless.studies.evaluate import evaluate
from gapless.studies.export import export
from gapless.studies.gap import gap
from gapless.studies.report import page
from gapless.studies.resume import resume
from gapless.studies.retrain import retrain
from gapless.studies.search import search
from gapless.studies.show import figures, show

__all__ = [
    "Recipe",
    "Run",
    "UserError",
    "compare",
    "diagnose",
    "evaluate",
    "export",
    "figures",
    "gap",
    "page",
    "resume",
    "retrain",
    "search",
    "show",
]
