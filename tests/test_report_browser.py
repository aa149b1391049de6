"""The page in a real browser, opened from disk: no error, light and dark, sorting, axe-core.

Skipped where Chromium or Chrome, its driver or selenium is missing. axe-core is the file that
``AXE_CORE`` names, else the one in ``node_modules``, else what npm fetches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from grokwatch import Run
from grokwatch.report import html_report
from tests.curves import GOLDEN, recorded

webdriver = pytest.importorskip("selenium.webdriver")
wait = pytest.importorskip("selenium.webdriver.support.wait")

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("grokker", "never", "slingshot")


def first_of(*programs):
    return next(filter(None, map(shutil.which, programs)), None)


@pytest.fixture(scope="module")
def browser():
    binary = first_of("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    driver = first_of("chromedriver", "chromium.chromedriver")
    if not (binary and driver):
        pytest.skip("no chromium and chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-background-networking"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One run, several, and two whose name is hostile."""
    folder = tmp_path_factory.mktemp("pages")
    run = recorded("immediate")
    name = "<script>document.title='taken'</script>" + 30 * "long_name_"
    hostile = Run(run.columns, run.settings, name)
    contents = {
        "one": [GOLDEN / "grokker.jsonl"],
        "several": [GOLDEN / f"{name}.jsonl" for name in NAMES],
        "hostile": [hostile, hostile],
    }
    for name, runs in contents.items():
        (folder / f"{name}.html").write_text(html_report(runs), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in contents}


def prefer(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def paper(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def curve_colour(browser):
    """Of the first text in the first figure, which is a tick's label."""
    return browser.execute_script(
        "return getComputedStyle(document.querySelector('svg text')).fill"
    )


@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("name", ["one", "several", "hostile"])
def test_it_opens_from_disk_without_errors_or_requests(browser, pages, name, width):
    browser.set_window_size(width, 900)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(pages[name])
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    assert set(asked) == {pages[name]}
    shown = browser.find_element("tag name", "body").text
    key = {"one": "Stop: it has generalised", "several": "3 runs", "hostile": "<script>document"}
    assert key[name] in shown and browser.title.endswith("· grokwatch")
    wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]  # tables scroll in their own boxes


def test_light_and_dark_and_the_button(browser, pages):
    seen = {}
    for scheme in ("light", "dark"):
        prefer(browser, scheme)
        browser.get(pages["one"])
        seen[scheme] = (paper(browser), curve_colour(browser))
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert all(seen["light"][i] != seen["dark"][i] for i in (0, 1))
    button = browser.find_element("css selector", "button.theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.send_keys("\n")  # by keyboard
    assert button.get_attribute("aria-pressed") == "false"
    assert (paper(browser), curve_colour(browser)) == seen["light"]


def test_sorting_and_opening_a_run(browser, pages):
    browser.get(pages["several"])

    def column(index):
        rows = browser.find_elements("css selector", "table.sortable tbody tr")
        return [row.find_elements("css selector", "th, td")[index].text for row in rows]

    heads = browser.find_elements("css selector", "table.sortable thead th")
    assert column(0) == list(NAMES)
    for _ in range(2):
        heads[1].find_element("tag name", "button").send_keys("\n")
    assert column(1) == ["8,000", "6,000", "6,000"]
    assert heads[1].get_attribute("aria-sort") == "descending"
    heads[7].find_element("tag name", "button").send_keys("\n")
    assert column(7) == ["1,201", "", ""]  # what is not known stays last
    details = browser.find_element("css selector", "#r1 > details")
    assert details.get_attribute("open") is None
    browser.find_element("css selector", "table.sortable a[href='#r1']").send_keys("\n")
    # The page is told of the new address a moment later.
    wait.WebDriverWait(browser, 20).until(lambda _: details.get_attribute("open") == "true")


@pytest.fixture(scope="module")
def axe_core(browser, tmp_path_factory):  # not asked for without a browser
    named = os.environ.get("AXE_CORE")
    path = Path(named) if named else ROOT / "node_modules" / "axe-core" / "axe.min.js"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no axe-core and no npm here: set AXE_CORE to axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    fetch = [npm, "pack", "axe-core@4", "--silent", "--no-update-notifier"]
    try:
        subprocess.run(fetch, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm could not fetch axe-core: {error}")
    (archive,) = folder.glob("axe-core-4.*.tgz")
    with tarfile.open(archive) as packed:
        return packed.extractfile("package/axe.min.js").read().decode("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "several"])
def test_axe_finds_no_violation(browser, axe_core, pages, name, scheme):
    prefer(browser, scheme)
    browser.get(pages[name])
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    run = "axe.run(document).then(found => JSON.stringify(found.violations))"
    answer = browser.execute_cdp_cmd(
        "Runtime.evaluate",
        {"expression": f"{axe_core};\n{run}", "awaitPromise": True, "returnByValue": True},
    )
    found = json.loads(answer["result"]["value"])
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == []
