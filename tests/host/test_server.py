"""The harness itself, with ComfyUI's own nodes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tools.server import HostError
from tools.workflow import Graph, to_prompt

pytestmark = pytest.mark.host


def test_a_prompt_runs_and_its_picture_comes_back(comfy):
    g = Graph()
    saved = g(
        "SaveImage",
        images=g("EmptyImage", width=24, height=16, batch_size=1, color=0xFF8000),
        filename_prefix="x",
    )
    (image,) = comfy.prompt(g)["outputs"][saved[0]]["images"]
    picture = Image.open(io.BytesIO(comfy.view(image)))
    assert picture.size == (24, 16)
    assert picture.getpixel((3, 3)) == (255, 128, 0)


def test_an_uploaded_picture_arrives(comfy, tmp_path):
    Image.new("RGB", (9, 5), (1, 2, 3)).save(tmp_path / "tiny.png")
    g = Graph()
    shown = g("PreviewImage", images=g("LoadImage", image=comfy.upload(tmp_path / "tiny.png")))
    (image,) = comfy.prompt(g)["outputs"][shown[0]]["images"]
    assert Image.open(io.BytesIO(comfy.view(image))).getpixel((8, 4)) == (1, 2, 3)


def test_a_refused_prompt_names_node_and_input(comfy):
    g = Graph()
    g("PreviewImage", images=g("EmptyImage", width=-1, height=16, batch_size=1, color=0))
    with pytest.raises(HostError, match=r"node 1 EmptyImage: .*width"):
        comfy.prompt(g)


def test_a_failing_node_is_named_with_its_own_words(comfy):
    g = Graph()
    broken = g("RegexReplace", string="text", regex_pattern="(", replace="")
    g("PreviewAny", source=broken)
    with pytest.raises(HostError, match=r"node 1 RegexReplace: .*unterminated subpattern"):
        comfy.prompt(g)


def test_a_saved_workflow_becomes_the_prompt(comfy):
    """Widget values go by position, past the editor's own ones (seed control); links win over widgets."""
    workflow = {
        "nodes": [
            {"id": 4, "type": "EmptyImage", "widgets_values": [24, 16, 1, 255]},
            {"id": 7, "type": "ImageAddNoise", "widgets_values": [11, "randomize", 0.25],
             "inputs": [{"name": "image", "type": "IMAGE", "link": 1}]},
            {"id": 8, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
            {"id": 9, "type": "Note", "widgets_values": ["not a node of the server"]},
        ],
        "links": [[1, 4, 0, 7, 0, "IMAGE"], [2, 7, 0, 8, 0, "IMAGE"]],
    }  # fmt: skip
    size = {"width": 24, "height": 16, "batch_size": 1}
    assert to_prompt(workflow, comfy.object_info()) == {
        "4": {"class_type": "EmptyImage", "inputs": {**size, "color": 255}},
        "7": {"class_type": "ImageAddNoise", "inputs": {"image": ["4", 0], "seed": 11, "strength": 0.25}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    }
