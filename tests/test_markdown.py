"""Markdown, read back by a renderer that nobody here wrote."""

import re

import pytest
import yaml
from markdown_it import MarkdownIt

from pipeline.markdown import bullets, document, table

HOSTILE = [
    "a|b",
    "*bold*",
    "<script>x</script>",
    "[x](http://y)",
    "under_score_",
    "back\\slash",
    "`code`",
    "two\nlines",
    "50%",
    "&amp;",
]


def rendered(markdown: str) -> list[str]:
    """Texts of the rendered table's cells."""
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", html, re.S)
    entities = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
    return [re.sub("|".join(entities), lambda found: entities[found[0]], cell) for cell in cells]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_table_shows_as_it_is(name: str) -> None:
    assert rendered(table((name, "count"), [(name, 3)])) == [" ".join(name.split()), "count", " ".join(name.split()), "3"]


def test_figures_have_four_digits_and_what_is_undefined_a_dash() -> None:
    page = table(("figure", "x", "y"), [("AP", 0.123449, 12), ("AP small", None, None)])
    assert rendered(page)[3:] == ["AP", "0.1234", "12", "AP small", "–", "–"]
    assert page.splitlines()[1] == "| --- | ---: | ---: |"


def test_the_header_is_yaml_and_the_page_follows() -> None:
    page = document({"license": "a: b", "tags": ["x"]}, "# Title", "", bullets({"n|m": 1}))
    _, front, body = page.split("---\n", 2)
    assert yaml.safe_load(front) == {"license": "a: b", "tags": ["x"]}
    assert body == "\n# Title\n\n- **n\\|m**: 1\n"
