"""The pack's blueprints: ComfyUI serves them, and all that is inside them exists."""

from __future__ import annotations

import json

import pytest

from tools.provision import REPO
from tools.server import PACK
from tools.workflow import _is_widget, _specs

BLUEPRINTS = sorted((REPO / "subgraphs").glob("*.json"))
OUTER_INPUT, OUTER_OUTPUT = -10, -20
#: Choices that depend on the files of a machine.
FILES = ("file", "base")

pytestmark = pytest.mark.host
each = pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda path: path.stem.partition(" (")[0])


def read(path) -> tuple[dict, dict]:
    """The one node of a blueprint, and the graph inside it."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    (node,), (inner,) = saved["nodes"], saved["definitions"]["subgraphs"]
    assert node["type"] == inner["id"]
    return node, inner


def kinds(kind) -> set[str]:
    return set(str(kind).split(","))


def test_comfyui_serves_them(comfy):
    served = {
        entry["name"]: key
        for key, entry in comfy.get("/global_subgraphs").items()
        if entry["info"]["node_pack"] == f"custom_nodes.{PACK}"
    }
    assert sorted(served) == [path.stem for path in BLUEPRINTS]
    for path in BLUEPRINTS:
        assert comfy.get(f"/global_subgraphs/{served[path.stem]}")["data"] == path.read_text(encoding="utf-8")


@each
def test_what_a_person_reads(blueprint):
    """The library shows the file's name, the category and the description."""
    node, inner = read(blueprint)
    saved = json.loads(blueprint.read_text(encoding="utf-8"))
    assert node["title"] == inner["name"] == blueprint.stem
    assert blueprint.stem.endswith(" (Fine Defocus)"), "another pack's may have the same name"
    assert inner["category"] == "Fine Defocus"
    assert 60 < len(inner["description"]) < 400
    assert saved["extra"]["BlueprintDescription"] == inner["description"]
    assert len(saved["extra"]["BlueprintSearchAliases"]) > 3


@each
def test_all_that_is_inside_exists(comfy, blueprint):
    _, inner = read(blueprint)
    known = comfy.object_info()
    for node in inner["nodes"]:
        info = known[node["type"]]
        specs = _specs(info)
        assert {slot["name"] for slot in node["inputs"]} <= set(specs), node["type"]
        outputs = [slot["name"] for slot in node["outputs"]]
        assert outputs == info["output_name"][: len(outputs)]
        widgets = [(name, *spec) for name, spec in specs.items() if _is_widget(*spec)]
        values = iter(node.get("widgets_values", []))
        for name, kind, options in widgets:
            # a node may have got optional inputs since: they are its last, and begin at their defaults
            value = next(values, options.get("default"))
            choices = kind if isinstance(kind, list) else options.get("options")
            if choices and name not in FILES:
                assert value in choices, name
            if options.get("control_after_generate"):
                assert next(values) == "fixed"
        assert list(values) == []
        sockets = (info["input"].get("required") or {}).keys() - {name for name, *_ in widgets}
        assert sockets <= {slot["name"] for slot in node["inputs"] if slot["link"] is not None}


@each
def test_links_join_what_fits(blueprint):
    node, inner = read(blueprint)
    nodes = {n["id"]: n for n in inner["nodes"]}
    links = {link["id"]: link for link in inner["links"]}
    for link in links.values():
        source = inner if link["origin_id"] == OUTER_INPUT else nodes[link["origin_id"]]
        out = source["inputs" if source is inner else "outputs"][link["origin_slot"]]
        target = inner if link["target_id"] == OUTER_OUTPUT else nodes[link["target_id"]]
        into = target["outputs" if target is inner else "inputs"][link["target_slot"]]
        assert kinds(out["type"]) & kinds(into["type"]), (out["name"], into["name"])
        assert link["id"] in (out.get("linkIds") or out.get("links"))
        assert link["id"] in (into.get("linkIds") or [into.get("link")])
    for slot in [*inner["inputs"], *inner["outputs"]]:
        assert slot["linkIds"], f"{slot['name']} leads nowhere"
    for side in ("inputs", "outputs"):
        assert [(s["name"], s["type"]) for s in node[side]] == [(s["name"], s["type"]) for s in inner[side]]


@each
def test_what_is_set_outside_is_what_stands_inside(comfy, blueprint):
    """A widget of the blueprint begins where the widget it stands for is."""
    node, inner = read(blueprint)
    known = comfy.object_info()
    nodes = {n["id"]: n for n in inner["nodes"]}
    links = {link["id"]: link for link in inner["links"]}
    outside = [slot for slot in node["inputs"] if "widget" in slot]
    for slot, value in zip(outside, node["widgets_values"], strict=True):
        (outer,) = (s for s in inner["inputs"] if s["name"] == slot["name"])
        link = links[outer["linkIds"][0]]
        target = nodes[link["target_id"]]
        name = target["inputs"][link["target_slot"]]["widget"]["name"]
        names = []
        for n, (kind, options) in _specs(known[target["type"]]).items():
            if _is_widget(kind, options):
                names += [n, "control"] if options.get("control_after_generate") else [n]
        assert target["widgets_values"][names.index(name)] == value, slot["name"]
