"""What the tests of the templates share: how one opens, whole and without overlaps."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from tools.provision import REPO
from tools.workflow import to_prompt

EXAMPLES = sorted((REPO / "example_workflows").glob("*.json"))
RENDERERS = pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])


def plain(prompt: dict) -> dict:
    """A prompt without the titles the editor adds."""
    return {i: {"class_type": n["class_type"], "inputs": n["inputs"]} for i, n in prompt.items()}


def overlapping(nodes: list[dict]) -> list[tuple[str, str]]:
    def meet(a, b):
        beside = a["right"] <= b["left"] or b["right"] <= a["left"]
        return not (beside or a["bottom"] <= b["top"] or b["bottom"] <= a["top"])

    return [(a["title"], b["title"]) for a, b in combinations(nodes, 2) if meet(a, b)]


def check_it_opens_whole(editor, comfy, example, nodes2: bool) -> None:
    """Every node known, every link there, the prompt as the file says, nothing over anything else."""
    workflow = json.loads(example.read_text(encoding="utf-8"))
    editor.load(workflow, example.stem)
    editor.fit()
    state = editor.state()
    editor.screenshot(f"{example.stem}-{'nodes2' if nodes2 else 'classic'}")

    saved = {str(n["id"]): n["type"] for n in workflow["nodes"]}
    assert {n["id"]: n["type"] for n in state["nodes"]} == saved
    assert [n["type"] for n in state["nodes"] if not n["known"] or n["errors"]] == []
    assert sorted(state["links"]) == sorted(link[:5] for link in workflow["links"])
    assert plain(state["prompt"]) == to_prompt(workflow, comfy.object_info())
    assert overlapping(state["nodes"]) == []
    assert state["vue"] == nodes2
    assert editor.errors == []
