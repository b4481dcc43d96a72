"""The page of a run, as a file: what stands on it, and that it needs nothing else."""

import re
from dataclasses import replace

import lines
import pytest
from browsed import Tree, alone
from diagnosed import told as diagnosed

from gapless.core.errors import UserError
from gapless.reports.html import Section, document, inline, join, paragraph, table, tag, text
from gapless.reports.page import page
from gapless.reports.panel import sheet, write
from gapless.runs.run import Run
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201


def with_gap(run, gap):
    run.write_listed("gap.json", gap)
    return run


def test_a_search_whose_gap_was_measured(trace, run_of, gap_of):
    records = trace(NASBench201(), 3)
    found = page(with_gap(run_of(NASBench201(), records), gap_of(NASBench201())))
    tree = alone(found.html)
    assert found.sections == (
        *("answer", "trust", "chain", "ranking", "fixing", "cells", "scores", "training", "repeat", "recipe"),
    )
    assert len(tree.named("svg")) == 6
    assert "drnas on nasbench201 on digits" in tree.text and "run: 3 epochs, seed 0, ended" in tree.text
    assert found.space.write(found.arch) in tree.text
    assert tree.text.index("not sound") < tree.text.index("The largest step") < tree.text.index("nor_conv_3x3 avg")
    assert "sound The answer did not change in the last 10 epochs." in tree.text
    assert "fact The largest step" in tree.text
    assert "gapless search run/recipe.toml --out run-again gapless gap run gapless retrain run" in tree.text
    assert re.search(r"Parameters [\d,]+, at the size", tree.text)


def test_what_was_not_measured_is_said(trace, run_of):
    found = page(run_of(NASBench201(), trace(NASBench201(), 2)))
    told = alone(found.html).text
    assert "trust" in found.sections and "chain" not in found.sections
    assert "not known how far this answer can be trusted" in told and "gapless gap run" in told


def test_a_gap_without_a_table(trace, run_of, gap_of):
    found = page(with_gap(run_of(NASBench201(), trace(NASBench201(), 2)), gap_of(NASBench201(), table=False)))
    assert "ranking" not in found.sections and "chain" in found.sections
    assert "is unknown: there was no table" in alone(found.html).text


def test_options_that_were_looked_at(trace, run_of):
    run = run_of(NASBench201(), trace(NASBench201(), 2))
    assert "options" not in page(run).sections
    run.write_listed("diagnose.json", diagnosed())
    found = page(run)
    tree = alone(found.html)
    assert found.sections.index("scores") < found.sections.index("options") < found.sections.index("training")
    assert "0.90 between options with weights, 0.70 between options without" in tree.text
    assert "The options early and late" in tree.text and "`" not in tree.text
    assert len(tree.named("svg")) >= 5  # the cell, scores, training, feature maps, the course
    run.write("diagnose.json", '{"images": ')
    with pytest.raises(UserError, match=r"diagnose.json was changed since .* gapless diagnose "):
        page(run)


def test_a_spoilt_gap_is_a_sentence(trace, run_of):
    run = run_of(NASBench201(), trace(NASBench201(), 2))
    run.write("gap.json", '{"run": ')
    with pytest.raises(UserError, match=r"gap.json is damaged: .*Measure it anew"):
        page(run)


def test_warnings_stand_once_with_their_epoch(trace, run_of):
    """A choice of nothing but skip connections from the third epoch on, so that it has lasted at the fifth."""
    space, records = NASBench201(), trace(NASBench201(), 7)
    free = ",".join(f"{d.name}=skip_connect" for d in space.decisions)
    records = [{**record, "arch": free if epoch > 1 else record["arch"]} for epoch, record in enumerate(records)]
    told = alone(page(run_of(space, records)).html).text
    assert told.count("no operation with weights") == 1
    assert "epoch 5 The present choice has had no operation with weights" in told
    assert "It was so at the end." in told


def test_a_warning_that_passed(trace, run_of):
    space, records = NASBench201(), trace(NASBench201(), 7)
    free = ",".join(f"{d.name}=skip_connect" for d in space.decisions)
    records = [{**r, "arch": free if epoch < 4 else r["arch"]} for epoch, r in enumerate(records)]
    assert "It was not so any more at the end." in alone(page(run_of(space, records)).html).text


def test_no_warning_no_section(trace, run_of):
    assert "warnings" not in page(run_of(NASBench201(), trace(NASBench201(), 2))).sections


def test_a_search_under_way(trace, run_of):
    found = page(run_of(NASBench201(), trace(NASBench201(), 2), ended=False))
    told = alone(found.html).text
    assert "under way" in told and "The present choice" in told
    assert "run has not ended: the cell is the choice after epoch 2" in told
    assert "gapless resume run" in told and "gapless retrain" not in told
    assert "Parameters" not in told and "trust" not in found.sections


def test_nothing_to_show_yet(run_of):
    with pytest.raises(UserError, match="first epoch has not ended"):
        page(run_of(NASBench201(), [], ended=False))


def test_an_architecture_trained_alone(trace, retrained, run_of):
    arch = trace(NASBench201(), 1)[0]["arch"]
    run = run_of(NASBench201(), [{**r, "arch": arch} for r in retrained], arch=arch)
    run.write_listed(
        "result.json",
        {**lines.RESULT, "test_accuracy": 42.0, "test_images": 360, "interval_95": [36.9, 47.2], "epochs": 4},
    )
    found = page(run)
    told = alone(found.html).text
    assert found.sections == ("answer", "cells", "training", "repeat", "recipe")
    assert "nasbench201, trained alone on digits" in told
    assert "42.00 % of 360 test images are classified rightly after the last of 4 epochs" in told
    assert "(95 % interval 36.90 to 47.20)" in told
    assert "gapless retrain run --out run-again" in told


def test_limits_are_told_with_what_the_answer_costs(trace, run_of):
    run = run_of(NASBench201(), trace(NASBench201(), 2))
    recipe = run.recipe()
    for limit, word in (({"params": "100M"}, "held"), ({"params": "10"}, "not held")):
        run.write("recipe.toml", replace(recipe, limit=limit).toml())
        run.end()
        assert re.search(rf"Limit params={limit['params']}: [\d,]+ parameters, {word}", alone(page(run).html).text)
    run.write("recipe.toml", replace(recipe, limit={"latency": "5ms"}).toml())
    run.end()
    assert "latency=5ms: not known" in alone(page(run).html).text


def test_what_was_judged(trace, run_of):
    space = NASBench201()
    records = [{**record, "scores": [[0.2] * 5] * 6} for record in trace(space, 3)]
    run = run_of(space, records)
    archs = [{"arch": records[-1]["arch"], "images": n, "accuracy": a} for n, a in ((64, 20.0), (500, 31.25))]
    run.write_listed("judged.json", {"seconds": 1.0, "archs": archs})
    found = page(run)
    assert "scores" not in found.sections
    assert "judged 1 architectures. The answer: 31.2 % of 500 images" in alone(found.html).text


def test_draws(trace, run_of, table_file):
    found = page(run_of(NASBench201(), trace(NASBench201(), 3)), table=table_file)
    assert "draws" in found.sections
    assert "cifar10_test_200 after epoch 3 (%)" in alone(found.html).text


def test_what_comes_from_a_run_is_escaped(trace, run_of, gap_of, tmp_path):
    evil = "</pre></title><script>alert(1)</script>\"' onload=x `<b>`"
    run = run_of(NASBench201(), trace(NASBench201(), 2))
    gap = gap_of(NASBench201(), truth=evil)
    gap["chain"][0]["what"] = evil
    run.write_listed("gap.json", gap)
    run.write_listed("machine.json", {**lines.MACHINE, "processor": evil, "gapless": evil})
    recipe = replace(run.recipe(), title=evil, source=evil)
    run.write("recipe.toml", recipe.toml())
    run.end()
    moved = run.path.rename(tmp_path / "<script> `'\"&")
    tree = alone(page(Run.open(moved)).html)
    assert not tree.named("b") or all(set(b) == set() for b in tree.named("b"))
    assert tree.text.count("<script>alert(1)</script>") >= 5
    assert "<script> `'\"&" in tree.text


def test_the_same_run_gives_the_same_bytes(trace, run_of, gap_of, monkeypatch):
    run = with_gap(run_of(Darts(), trace(Darts(), 3), ended=False), gap_of(Darts()))
    first = page(run).html
    assert page(run).html == first
    monkeypatch.chdir(run.path)
    assert page(Run.open(".")).html == first, "wherever it is called from"


def test_a_long_search_of_many_decisions_stays_small(trace, run_of, gap_of):
    found = page(with_gap(run_of(Darts(), trace(Darts(), 50)), gap_of(Darts())))
    tree = alone(found.html)
    assert len(tree.named("svg")) == 7
    assert len(found.html.encode()) < 1_000_000


def test_text_of_figures_stays_text_and_their_ids_their_own(trace, run_of):
    html = page(run_of(Darts(), trace(Darts(), 3))).html
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert "sep_conv_3x3" in Tree(svgs[1]).text
    assert {found[:3] for svg in svgs for found in re.findall(r' id="([^"]+)"', svg)} == {"f0-", "f1-", "f2-", "f3-"}
    assert "<style" not in "".join(svgs) and "metadata" not in "".join(svgs)


def test_text_that_looks_like_a_reference_is_left_alone():
    figure = sheet(1.0, 1.0)
    write(figure, 0.1, 0.5, 'id="a" url(b) <i>')
    svg = inline(figure, "f9", "label & more")
    assert Tree(svg).text == 'id="a" url(b) <i>'
    assert Tree(svg).named("svg")[0]["aria-label"] == "label & more"


def test_pieces_of_a_page():
    assert tag("p", aria_label='"><b>&') == '<p aria-label="&quot;&gt;&lt;b&gt;&amp;"></p>'
    assert tag("td", text(3), class_="number") == '<td class="number">3</td>'
    assert paragraph("use `a & b`", "quiet") == '<p class="quiet">use <code>a &amp; b</code></p>'
    listed = table(("name", "n"), [("<x>", "1")], caption="What", code=(0,))
    assert '<th scope="row"><code>&lt;x&gt;</code></th><td class="number">1</td>' in listed
    html = document("T & U", tag("h1", text("T")), [Section("a", "A < B", join([paragraph("one"), paragraph("two")]))])
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "<title>T &amp; U</title>" in html and '<a href="#a">A &lt; B</a>' in html
    assert Tree(html).named("section") == [{"id": "a", "aria-labelledby": "a-heading"}]
