"""Links of the pages: the files and headings they go to exist, and so do the tests that their titles name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.provision import REPO

PAGES = [
    path.relative_to(REPO).as_posix()
    for pattern in ("*.md", "training/*.md", "web/docs/*.md")
    for path in sorted(REPO.glob(pattern))
]
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]*)(?:\s+\"(?P<title>[^\"]*)\")?\)")


def prose(page: Path) -> str:
    """The text without its code, in which a bracket is no link and a # no heading."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("[", " "), text)


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of a page that go nowhere."""
    found = []
    for link in LINK.finditer(prose(page)):
        target, title = link["target"], link["title"]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        exists = file.exists() and (not anchor or anchor in anchors(file))
        if exists and title and title.startswith("test_"):
            functions = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            exists = title in {f.name for f in functions if isinstance(f, ast.FunctionDef)}
        if not exists:
            found.append(link[0])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_goes_somewhere(page):
    assert broken(REPO / page) == []


def test_the_pages_are_found():
    assert {"README.md", "CHANGELOG.md", "training/README.md", "web/docs/FineDefocusTAFLens.md"} <= set(PAGES)


@pytest.mark.parametrize(
    ("link", "works"),
    [
        ("[a](page.md)", True),
        ("[a](none.md)", False),
        ("![a](none.webp)", False),
        ("[a](#a-heading-with-code)", True),
        ("[a](page.md#in-a-fence)", False),
        ('[1](test_a.py "test_there")', True),
        ('[1](test_a.py "test_gone")', False),
        ("`x[0](none.md)`", True),
        ("[a](https://example.com)", True),
    ],
)
def test_a_planted_link(tmp_path, link, works):
    (tmp_path / "test_a.py").write_text("class TestA:\n    def test_there(self):\n        pass\n")
    page = tmp_path / "page.md"
    page.write_text(f"## A heading, with `code`\n{link}\n```\n# In a fence\n[a](none.md)\n```\n")
    assert broken(page) == [] if works else len(broken(page)) == 1
