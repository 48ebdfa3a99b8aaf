"""The table of features: every cell of ours stands on tests and nodes that are there; the README shows it."""

from __future__ import annotations

import re

import pytest
from acceptance.features import FEATURES, PEERS, README, in_readme, table
from acceptance.named import REPO, missing, node_ids


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_is_what_its_tests_say(feature):
    assert missing(feature.tests) == []
    assert {f"FineDefocus{node}" for node in feature.nodes} <= node_ids()
    # nothing is claimed without a test, and what is not there has none
    assert bool(feature.tests) == (feature.ours != "no")
    assert feature.but or feature.ours != "partly"
    for peer in feature.peers:
        key = re.match(r"[A-Z]+\b", peer)
        assert key is None or key[0] in PEERS


def test_what_was_due_at_launch_is_there():
    assert [f.name for f in FEATURES if f.goal == "M" and f.ours != "yes"] == []


def test_every_row_says_what_there_is_and_links_its_tests():
    rows = {
        cells[1].strip(): cells for cells in (row.split("|") for row in table().splitlines()) if cells[1:]
    }
    for feature in FEATURES:
        _, _, others, here, held, _ = rows[feature.name]
        assert here.strip().startswith(feature.ours)
        assert held.count("](tests/") == len(feature.tests)
        assert others.strip()


def test_every_node_has_a_help_page():
    pages = {page.stem for page in (REPO / "web" / "docs").glob("*.md") if page.read_text("utf-8").strip()}
    assert pages == node_ids()


def test_the_readme_shows_this_table():
    there = in_readme(README.read_text(encoding="utf-8"))
    assert there == table(), "run python tests/acceptance/features.py --write"
