"""The page: self-contained, escaped, valid, the same every time, and right about the run."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from grokwatch import Run, Verdict, replay
from grokwatch.records import RecordError
from grokwatch.replay import Replay
from grokwatch.report import html_report
from tests.curves import GOLDEN, recorded

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> $\\frac{ &amp; {{ 7*7 }}"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks nesting, and collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.ids, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def one():
    return html_report([GOLDEN / "grokker.jsonl"])


@pytest.fixture(scope="module")
def several():
    return html_report([GOLDEN / f"{name}.jsonl" for name in ("grokker", "never", "slingshot")])


def said(text):
    return " ".join(" ".join(Page(text).words).split())


def test_one_run_says_what_happened(one):
    words = said(one)
    final = replay(GOLDEN / "grokker.jsonl").final
    assert "Stop: it has generalised" in words and final.reason in words
    for fact in ("1,201", "741", "5,606 (5.7 decades)", "20,000", "Read as jsonl"):
        assert fact in words
    assert all(name in words for name in final.signals)
    assert "stop_generalised first came at step 1,301" in words
    assert "saves 4,699 of the 6,000 steps recorded (78%), 18,699 of the budget" in words
    for symbol, name in (("m", "relative_gap"), ("R_rel", "relative_sharpness")):
        assert f"{symbol} {final.signals[name]:.4g}" in words


def test_a_run_that_never_generalised_says_so():
    words = said(html_report([GOLDEN / "never.jsonl"]))
    assert "Stop: unlikely to generalise within its budget" in words
    first = next(
        v for v in replay(GOLDEN / "never.jsonl").verdicts if v.recommendation != "continue"
    )
    assert f"stop_unpromising first came at step {first.step:,}" in words
    assert "The jump, fitted" not in words


def test_several_runs_have_a_summary_that_can_be_sorted(several):
    page = Page(several)
    assert "3 runs, by the phase they ended in: 2 memorisation, 1 generalised." in said(several)
    assert "sortable" in page.all("table")[0]["class"]
    heads = [cell for cell in page.all("th") if "aria-sort" in cell]
    cells = [cell["data-sort"] for _, cell in page.tags if "data-sort" in cell]
    assert len(heads) == 11 and len(cells) == 33
    by_run = [cells[i : i + 11] for i in (0, 11, 22)]
    assert [row[0] for row in by_run] == ["grokker", "never", "slingshot"]
    assert [row[7] for row in by_run] == ["1201.0", "", ""]  # t4
    links = [a["href"] for a in page.all("a") if a.get("href", "").startswith("#r")]
    assert {link[1:] for link in links} <= set(page.ids)


@pytest.mark.parametrize("which", ["one", "several"])
def test_it_is_valid_accessible_and_asks_nothing_of_the_network(which, request):
    text = request.getfixturevalue(which)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                assert value.startswith("#"), (tag, name, value)
    urls = set(re.findall(r"[a-z]+://[^\s\"'<>)]+", text))
    assert urls == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in text and "url(//" not in text
    drawings = page.all("svg")
    assert len(drawings) >= 7
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert set(drawing["aria-labelledby"].split()) <= set(page.ids)
    used = re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)
    assert set(used) <= set(page.ids)
    assert all("scope" in cell for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert len(text.encode()) < 1_500_000


def test_the_policy_allows_the_one_script_and_nothing_else(one):
    (policy,) = [m["content"] for m in Page(one).all("meta") if "http-equiv" in m]
    (script,) = re.findall(r"<script>(.*?)</script>", one, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_hostile_names_are_text():
    run = recorded("immediate")
    source = {"format": HOSTILE, "names": {"val_loss": HOSTILE}, "basis": [HOSTILE]}
    columns = {**run.columns, HOSTILE: run.columns["val_loss"]}
    hostile = Run(columns, run.settings, HOSTILE, source=source)
    for runs in ([hostile], [hostile, hostile]):
        text = html_report(runs)
        page = Page(text)
        assert html.escape(HOSTILE, quote=False)[:20] in text
        assert len(page.all("script")) == 1 and page.all("img") == []
        assert HOSTILE in "".join(page.words)


def test_the_same_runs_give_the_same_page(one):
    assert html_report([replay(GOLDEN / "grokker.jsonl")]) == one


def test_a_run_in_percent_is_shown_and_judged_in_shares():
    run = recorded("immediate")
    percent = {
        name: (steps, values * np.float32(100) if name.endswith("_accuracy") else values)
        for name, (steps, values) in run.columns.items()
    }
    text = html_report([Run(percent, run.settings, "percent")], accuracy_unit="percent")
    assert "Stop: it has generalised" in text and 'val_accuracy</th><td class="n">1<' in text


def test_settings_that_are_given_are_those_that_are_shown():
    words = said(html_report([recorded("never")], budget=7000))
    assert "budget 7,000" in words and "of the budget of 7,000" in words
    assert "20,000" not in words


def run_of(**columns):
    return Run({name: (range(1, len(v) + 1), v) for name, v in columns.items()}, {"budget": 50})


@pytest.mark.parametrize(
    "run",
    [
        run_of(train_loss=[1.0]),
        run_of(train_loss=[0.0, 0.0, 0.0]),
        run_of(train_loss=[np.nan, np.inf, np.nan, np.nan]),
        run_of(val_accuracy=[0.5, 0.5]),
        run_of(weight_norm=[0.0, 1.0]),
        run_of(train_loss=[2.3, 2.300001, 2.3]),
        Run({"train_loss": ([0], [1.0])}, {"budget": 5}),
        Run({"train_loss": ([10**14, 10**15], [1e-38, 3e38])}, {"budget": 10**15}),
        run_of(train_loss=[1.0, 0.5], train_accuracy=[0.0, 1.0], val_margin=[-1.0, 1.0]),
    ],
)
def test_little_or_odd_data(run):
    page = Page(html_report([run, run]))
    assert page.headings[0] == 1


def test_losses_that_a_log_axis_cannot_show_are_counted():
    text = html_report([run_of(train_loss=[1.0, 0.0, np.nan, 0.5])])
    assert "2 values are not shown: they are 0 or not finite." in said(text)


def test_a_stop_that_would_have_been_a_mistake_is_called_one():
    run = run_of(train_loss=np.ones(40), val_accuracy=np.linspace(0, 1, 40))
    verdicts = [
        Verdict(10, "memorisation", 0.01, None, "stop_unpromising", "Hopeless.", {"t2": 2.0}),
        Verdict(20, "memorisation", 0.30, None, "continue", "Perhaps.", {"t2": 2.0}),
        Verdict(40, "generalised", 1.0, (38, 38, 38), "stop_generalised", "Done.",
                {"t2": 2.0, "t4": 38.0}),
    ]  # fmt: skip
    words = said(html_report([Replay(run, verdicts)]))
    assert "It would have been a mistake: the run generalised at step 38 all the same." in words


def test_a_diverged_and_an_ungrokked_phase_are_shown():
    stages = [("confusion", 1), ("memorisation", 9), ("generalised", 20), ("ungrokked", 30),
              ("diverged", 38)]  # fmt: skip
    verdicts = [Verdict(at, phase, None, None, "continue", "Well.") for phase, at in stages]
    page = Page(html_report([Replay(run_of(train_loss=np.ones(40)), verdicts)]))
    legend = [a["style"] for a in page.all("span") if "swatch" in a.get("class", "")]
    assert legend == [f"background: var(--{phase})" for phase, _ in stages]


def test_misuse():
    with pytest.raises(ValueError, match="at least one run"):
        html_report([])
    with pytest.raises(RecordError, match="no such file"):
        html_report(["nowhere.csv"])
    with pytest.raises(TypeError, match="do not reach"):
        html_report([replay(GOLDEN / "never.jsonl")], budget=5)


def test_progress_names_the_runs():
    told = []
    html_report([run_of(train_loss=[1.0, 0.5])] * 2, progress=told.append)
    assert told == ["run", "run"]
