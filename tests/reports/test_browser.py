"""The pages of a run and of a comparison in a real browser, without a window: wide and narrow, and in print."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import lines
import pytest
from compared import SEARCHED, searched

from gapless.reports import comparison_page
from gapless.reports.html import POLICY
from gapless.reports.page import page
from gapless.runs.comparison import ComparisonCell
from gapless.runs.run import Run
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.needs_browser,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; .ci/run installs it where it can"),
]
PHONE, DESK = 390, 1200
MEASURE = """
<script>
addEventListener("load", () => {
  const inside = document.getElementById("page").contentDocument;
  const root = inside.documentElement;
  const sizes = [...inside.querySelectorAll("svg")].map(s => s.getBoundingClientRect()).map(b => [b.width, b.height]);
  const asked = document.getElementById("page").contentWindow.performance.getEntriesByType("resource").map(e => e.name);
  document.title = JSON.stringify({wide: root.scrollWidth, room: root.clientWidth, sizes, asked});
});
</script>
"""
"""Only a test has a script. It looks into the page from outside, since the page itself allows none."""


@pytest.fixture
def browse(tmp_path):
    """Return a function that runs the browser on a file."""

    def run(*arguments, errors=False):
        usual = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
        command = [BROWSER, *usual, f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)
        return done.stderr if errors else done.stdout

    return run


@pytest.fixture
def file(trace, run_of, gap_of, tmp_path):
    """A page with everything that is wide: two cells, fourteen decisions each, a ranking, a long name."""
    run = run_of(Darts(), trace(Darts(), 4))
    run.write_listed("gap.json", gap_of(Darts()))
    run.write_listed("machine.json", {**lines.MACHINE, "processor": "x" * 200, "gapless": "0.1.0"})
    path = tmp_path / "page.html"
    path.write_text(page(run).html, encoding="utf-8")
    return path


@pytest.fixture
def comparison(folder, gap_of, tmp_path):
    """The page of a comparison with everything that is wide: two sets of images, many seeds, long names and errors."""
    asked = folder.comparison()
    many, name = tuple(range(12)), "images_of_a_rather_long_name"
    for seed in many[1:]:
        run = Run.create(folder.run(ComparisonCell("pc_darts", name, seed)).path)
        searched(run, "pc_darts", NASBench201(), *SEARCHED["pc_darts"][seed % 3])
        run.write_listed("machine.json", {**lines.MACHINE, "processor": "x" * 200, "gapless": "0.1.0"})
        run.write_listed("gap.json", gap_of(NASBench201()))
    folder.write(replace(asked, seeds=many, data=("digits", name), columns=asked.columns * 2))
    folder.log(ComparisonCell("pc_darts", name, 0)).write_text(f"Failed: {'what went wrong ' * 20} {'y' * 300}\n")
    path = tmp_path / "page.html"
    path.write_text(comparison_page.page(folder).html, encoding="utf-8")
    return path


def measured(browse, file, width):
    """Return what the page measures at a width: in a frame, for windows cannot be as narrow as a phone everywhere."""
    outside = file.with_name("outside.html")
    frame = f'<iframe id="page" src="page.html" style="border:0;width:{width}px;height:2000px"></iframe>'
    outside.write_text(f"<!DOCTYPE html><title>-</title>{MEASURE}{frame}", encoding="utf-8")
    dom = browse("--virtual-time-budget=10000", "--window-size=1400,2000", "--dump-dom", f"file://{outside}")
    return json.loads(re.search(r"<title>(\{.*?\})</title>", dom, re.DOTALL).group(1))


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_sticks_out_and_all_figures_are_there(browse, file, width):
    told = measured(browse, file, width)
    assert told["room"] == width
    assert told["wide"] == width, "the page scrolls sideways"
    assert len(told["sizes"]) == 7
    assert all(wide > 100 and high > 50 for wide, high in told["sizes"])
    assert told["asked"] == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_of_a_comparison_fits(browse, comparison, width):
    told = measured(browse, comparison, width)
    assert told["wide"] == told["room"] == width, "the page scrolls sideways"
    assert len(told["sizes"]) == 1 + 3
    assert all(wide > 100 and high > 50 for wide, high in told["sizes"])
    assert told["asked"] == []


@pytest.mark.parametrize("of", ["file", "comparison"])
def test_the_console_stays_empty(browse, of, request):
    """What the policy forbids, and what is wrong with the page, the browser tells on its error output."""
    page = request.getfixturevalue(of)
    told = browse("--enable-logging=stderr", "--log-level=0", "--dump-dom", f"file://{page}", errors=True)
    assert "CONSOLE" not in told
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", '<img src="no.png"></body>'), encoding="utf-8")
    assert "CONSOLE" in browse("--enable-logging=stderr", "--log-level=0", "--dump-dom", f"file://{page}", errors=True)


def test_a_comparison_prints_with_all_that_is_folded(browse, comparison, tmp_path):
    paper = tmp_path / "page.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", f"file://{comparison}")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-") and 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 25
    reader = shutil.which("pdftotext")
    if reader:
        words = subprocess.run([reader, str(paper), "-"], capture_output=True, text=True, check=True).stdout
        assert "[comparison]" in words and "what went wrong" in words
        assert "".join(words.replace("-", "").split()).count("pc_dartsimages_of_a_rather_long_nameseed7") >= 3, (
            "in the gaps, the runs, the machines"
        )


def test_a_page_too_wide_would_be_seen(browse, file):
    """The measurement itself: a line that cannot break is found."""
    html = file.read_text(encoding="utf-8")
    file.write_text(html.replace("<h1>", "<h1 style='white-space:nowrap'>" + "wide " * 40), encoding="utf-8")
    told = measured(browse, file, PHONE)
    assert told["wide"] > PHONE


def test_the_page_itself_may_run_no_script_and_load_nothing(browse, file):
    html = file.read_text(encoding="utf-8")
    more = '<script>document.title = "ran"</script><img src="page.png">'
    file.write_text(html.replace("</body>", f"{more}</body>"), encoding="utf-8")
    assert "<title>ran</title>" not in browse("--dump-dom", f"file://{file}")
    free = html.replace(POLICY, "").replace("</body>", f"{more}</body>")
    file.write_text(free, encoding="utf-8")
    assert "<title>ran</title>" in browse("--dump-dom", f"file://{file}"), "without the policy it would have run"


def test_it_prints_with_the_folded_recipe(browse, file, tmp_path):
    paper = tmp_path / "page.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", f"file://{file}")
    content = paper.read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert content.startswith(b"%PDF-") and 3 <= pages <= 15
    reader = shutil.which("pdftotext")
    if reader:
        words = subprocess.run([reader, str(paper), "-"], capture_output=True, text=True, check=True).stdout
        assert "[space]" in words and "not sound" in words and "sep_conv_3x3" in words


def test_it_can_be_looked_at(browse, file, tmp_path):
    picture = tmp_path / "page.png"
    browse(f"--window-size={DESK},2000", f"--screenshot={picture}", f"file://{file}")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 50_000
