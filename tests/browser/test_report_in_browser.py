"""The report page as a browser shows it: laid out, legible, silent; needs Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.report import render_html
from tests.harness.day_report import is_free_text, replaced, sample_report, strings

pytestmark = pytest.mark.process

POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
# Measures in the page itself; only here, where the test takes the page's own policy away.
MEASURE = """<script>
addEventListener("load", () => {
  const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)|transparent/.test(c)) return c; }
    return "rgb(255, 255, 255)"; };
  const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p);
    return (x + .05) / (y + .05); };
  const visible = e => e.getClientRects().length && e.checkVisibility();
  const boxOf = e => e.getBoundingClientRect();
  const texts = [...document.querySelectorAll("svg text")].filter(visible);
  const outside = texts.filter(t => { const a = boxOf(t), b = boxOf(t.closest("svg"));
    return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1
      || a.bottom > b.bottom + 1; }).map(t => t.textContent);
  const over = [];
  for (const svg of document.querySelectorAll("svg")) {
    const own = [...svg.querySelectorAll("text")].filter(visible);
    own.forEach((a, i) => own.slice(i + 1).forEach(b => { const p = boxOf(a), q = boxOf(b);
      if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
        && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4)
        over.push(a.textContent + " | " + b.textContent); })); }
  const words = [...document.querySelectorAll("td, th, h1, h2, h3, p, dt, dd, li, summary, .word")]
    .filter(visible).filter(e => e.textContent.trim());
  const result = {
    wide: document.documentElement.scrollWidth, window: innerWidth,
    outside, over,
    pale: words.filter(e => ratio(getComputedStyle(e).color, ground(e)) < 4.5)
      .map(e => e.tagName + ": " + e.textContent.trim().slice(0, 40)),
    paleFigures: texts.filter(t => ratio(getComputedStyle(t).fill, ground(t)) < 4.5).length,
    smallest: Math.min(...words.map(e => parseFloat(getComputedStyle(e).fontSize))),
    verdict: boxOf(document.querySelector(".verdict")).bottom,
    plots: [...document.querySelectorAll(".plot")].map(e => [boxOf(e).top, boxOf(e).bottom]),
    open: document.querySelectorAll("details[open]").length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  };
  const out = document.createElement("pre"); out.id = "measured";
  out.textContent = JSON.stringify(result); document.body.append(out);
});
</script>"""


def chromium(folder: Path, *arguments: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "these tests need Chromium: apt-get install chromium"
    done = subprocess.run(
        [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
            *arguments,
        ],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return done.stdout


def saved(folder: Path, page: str, name: str = "page.html") -> str:
    (folder / name).write_text(page, encoding="utf-8")
    return (folder / name).as_uri()


def measured(folder: Path, report: dict[str, Any], width: int, *more: str) -> dict[str, Any]:
    """What a browser of this width makes of a report; in a frame, as windows have a least width."""
    page, times = POLICY.subn(lambda _: MEASURE, render_html(report))
    assert times == 1
    frame = (
        f'<iframe style="border:0;width:{width}px;height:900px" src="{saved(folder, page)}">'
        "</iframe><pre id=out></pre><script>addEventListener('load', () => setTimeout(() => {"
        "out.textContent = document.querySelector('iframe').contentDocument"
        ".getElementById('measured').textContent; }, 50));</script>"
    )
    dom = chromium(
        folder, *more, "--allow-file-access-from-files", "--window-size=1700,1000",
        "--virtual-time-budget=3000", "--dump-dom", saved(folder, frame, "frame.html"),
    )  # fmt: skip
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    result: dict[str, Any] = json.loads(text)
    return result


def legible(result: dict[str, Any]) -> None:
    assert result["wide"] <= result["window"]
    assert result["outside"] == []
    assert result["over"] == []
    assert result["pale"] == []
    assert result["paleFigures"] == 0
    assert result["smallest"] >= 15


def test_on_a_wall_the_first_screen_holds_verdict_figures_and_both_plots(tmp_path: Path) -> None:
    result = measured(tmp_path, sample_report(), 1600)
    legible(result)
    assert result["verdict"] < 100
    assert not result["dark"]
    assert len(result["plots"]) == 2
    assert all(bottom <= 900 for _, bottom in result["plots"])
    assert result["plots"][0] == result["plots"][1], "plots stand side by side"
    assert result["open"] == 0


def test_in_the_dark_everything_stays_legible(tmp_path: Path) -> None:
    result = measured(tmp_path, sample_report(), 1600, "--blink-settings=preferredColorScheme=0")
    assert result["dark"]
    legible(result)


def test_a_phone_scrolls_tables_and_plots_but_never_the_page(tmp_path: Path) -> None:
    result = measured(tmp_path, sample_report(), 390)
    legible(result)
    assert result["window"] == 390


def test_long_names_do_not_push_the_page_apart(tmp_path: Path) -> None:
    report = sample_report()
    for path, said in list(strings(report)):
        if is_free_text(said) and path[-1] not in {"timezone", "currency", "unit"}:
            replaced(report, path, said + "_" + "x" * 80)
    for width in (1600, 390):
        result = measured(tmp_path, report, width)
        assert result["wide"] <= result["window"]
        assert result["outside"] == []


def test_a_browser_runs_nothing_that_a_report_says(tmp_path: Path) -> None:
    report = sample_report()
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    for path, said in list(strings(report)):
        if is_free_text(said):
            replaced(report, path, evil)
    report["checks"] = {evil: True}
    page = POLICY.sub("", render_html(report))  # even without the policy
    dom = chromium(tmp_path, "--dump-dom", saved(tmp_path, page))
    assert "<title>owned" not in dom
    assert "<script" not in dom
    assert "<img" not in dom


def test_it_prints_on_paper(tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    page = saved(tmp_path, render_html(sample_report()))
    chromium(tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer", page)
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    pages = [int(n) for n in re.findall(rb"/Count (\d+)", content)]
    assert 1 <= max(pages) <= 6
