"""The page of a run in a real browser, without a window: wide and narrow, and in print."""

import json
import re
import shutil
import subprocess

import pytest

from gapless.report.html import POLICY
from gapless.report.page import page
from gapless.spaces.darts import Darts

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; .ci/run installs it where it can")
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

    def run(*arguments):
        usual = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
        command = [BROWSER, *usual, f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True).stdout

    return run


@pytest.fixture
def file(trace, run_of, gap_of, tmp_path):
    """A page with everything that is wide: two cells, fourteen decisions each, a ranking, a long name."""
    run = run_of(Darts(), trace(Darts(), 4))
    run.write_json("gap.json", gap_of(Darts()))
    run.write_json("machine.json", {"processor": "x" * 200, "gapless": "0.1.0"})
    path = tmp_path / "page.html"
    path.write_text(page(run).html, encoding="utf-8")
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
