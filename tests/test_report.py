"""Report pages: self-contained, escaped, the same bytes every time."""

import base64
import hashlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report import Badge, Link, Report, data_address, format_cell

RED = np.zeros((20, 30, 3), np.uint8) + np.array([220, 20, 20], np.uint8)
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>'


def sample() -> Report:
    report = Report("Results", "of a <test>")
    report.facts({"AP": 0.51234, "pictures": 12345, "passed": True, "missing": None})
    report.text("Words", "One paragraph.", "Another.")
    report.table(
        "Numbers",
        ["class", "AP", "state"],
        [["cat", 0.5, Badge("good", "good")], ["dog", None, Link("run", "https://x.org/1")]],
        "note",
    )
    report.pictures("Pictures", [(RED, "first line\nsecond line"), (SVG, "")])
    report.plot("Curve", SVG, "caption")
    return report


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = sample().html()
    assert "<script" not in page
    assert all(address.startswith("data:image/") for address in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"url\(|@import|<link", page)
    assert "default-src 'none'" in page


def test_a_sortable_table_brings_the_one_script_that_the_page_allows() -> None:
    report = sample()
    report.table("Sorted", ["n", "tone"], [[1234567, Badge("a", "warning")], [None, Badge("b", "error")]], sortable=True)
    page = report.html()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "unsafe-inline'; script" in page
    values = re.findall(r'data-value="([^"]*)"', page)
    assert values == ["1234567", "1", "-Infinity", "0"], "only what is sortable says its values"


def test_a_click_sorts(tmp_path: Path) -> None:
    """In a real browser: numbers by value and not by their text, the other way at the second click, texts as texts."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    report = Report("t")
    rows = [["b", 9, Badge("info", "info")], ["a", 10000, Badge("error", "error")], ["c", None, Badge("warning", "warning")]]
    report.table("Sorted", ["name", "n", "severity"], rows, sortable=True)
    report.write(tmp_path / "page.html")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())

        def after(column: str) -> str:
            page.click(f"th:has-text('{column}')")
            return "".join(page.locator("tbody tr td:first-child").all_text_contents())

        assert [after("name"), after("n"), after("n"), after("severity")] == ["abc", "cba", "abc", "acb"]
        assert faults == []
        browser.close()


def test_markup_in_labels_is_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    report = Report(evil, evil)
    report.facts({evil: evil})
    report.text(evil, evil)
    report.table(
        evil, [evil], [[evil], [Badge(evil, "error")], [Link(evil, "javascript:alert(1)")], [Link(evil, '"><script>')]], evil
    )
    report.pictures(evil, [(RED, evil + "\n" + evil)], evil)
    page = report.html()
    assert not [markup for markup in ("<img src=x", "<script", "javascript:") if markup in page]
    assert page.count("&lt;img src=x") >= 10


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sample().write(tmp_path / name / "index.html")
    assert (tmp_path / "a/index.html").read_bytes() == (tmp_path / "b/index.html").read_bytes()


def test_an_array_comes_back_as_it_was() -> None:
    kind, _, data = data_address(RED).partition(";base64,")
    assert kind == "data:image/jpeg"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert back.shape == RED.shape
    assert np.abs(back.astype(int) - RED).max() <= 3  # channels in order, colour kept


def test_bytes_are_told_by_their_content() -> None:
    png = io.BytesIO()
    Image.fromarray(RED).save(png, "PNG")
    assert data_address(png.getvalue()).startswith("data:image/png;")
    assert data_address(SVG).startswith("data:image/svg+xml;")
    with pytest.raises(ValueError, match="JPEG, PNG or SVG"):
        data_address(b"GIF89a")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (1234567, "1\u2009234\u2009567"),
        (None, "–"),
        (True, "yes"),
        (np.float64(0.5), "0.5"),
        ("a", "a"),
        (float("nan"), "nan"),
    ],
)
def test_cells_as_people_read_them(value: object, text: str) -> None:
    assert format_cell(value) == text  # type: ignore[arg-type]


def test_order_is_that_of_the_calls_and_an_empty_heading_makes_none() -> None:
    report = Report("t")
    for heading in ("one", "", "two", "three"):
        report.text(heading, f"paragraph of {heading}")
    page = report.html()
    assert re.findall(r"<h2>(.*)</h2>", page) == ["one", "two", "three"]
    assert page.index("one</h2>") < page.index("paragraph of </p>") < page.index("two</h2>")


def test_an_empty_table_still_has_its_columns() -> None:
    report = Report("t")
    report.table("nothing", ["a", "b"], [])
    assert ">a</th>" in report.html()


def test_numbers_are_set_right_with_the_gaps_between_them(tmp_path: Path) -> None:
    report = Report("t")
    report.table("", ["class", "AP", "note"], [["a", None, None], ["b", 0.5, "fine"]])
    page = report.html()
    assert re.findall(r"<th( [^>]*)?>", page) == ["", ' class="number"', ""]
    assert re.findall(r"<td( [^>]*)?>", page) == ["", ' class="number"', ""] * 2
