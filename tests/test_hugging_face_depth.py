"""Depth networks of transformers: tiny ones with random weights, beside the library's own processing.

The library is in ComfyUI's environment and not in this one, so most of it runs there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_models.depth.hugging_face import MetricModel, Preparation, load_metric_model
from tools import provision
from tools.provision import REPO

HALF = (0.5, 0.5, 0.5)

# Writes a folder per kind, loads it as the pack does, and prints what came out.
SCRIPT = """
import json, pathlib, sys
repo, folder = sys.argv[1:]
sys.path.insert(0, repo)
import torch, transformers
from transformers import (
    BeitConfig, DepthAnythingConfig, DepthAnythingForDepthEstimation, DepthProConfig, DPTImageProcessor,
    DepthProForDepthEstimation, DepthProImageProcessor, Dinov2Config, ZoeDepthConfig,
    ZoeDepthForDepthEstimation, ZoeDepthImageProcessor,
)
from lens_models.depth.estimator import load_network, measure, title, working_bytes

transformers.logging.set_verbosity_error()
torch.manual_seed(0)
torch.set_num_threads(1)
folder = pathlib.Path(folder)
dino = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, patch_size=14)

def anything():
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(
            **dino, image_size=56, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True
        ),
        reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=4,
        depth_estimation_type="metric", max_depth=20,
    )
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3,
    )
    return DepthAnythingForDepthEstimation(config), processor

def pro():
    side = dict(dino, image_size=32, patch_size=8)
    config = DepthProConfig(
        fusion_hidden_size=16, patch_size=32, intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8], scaled_images_feature_dims=[8, 8, 8], merge_padding_value=1,
        image_model_config=Dinov2Config(**side), patch_model_config=Dinov2Config(**side),
        fov_model_config=Dinov2Config(**side), use_fov_model=True, num_fov_head_layers=1,
    )
    network = DepthProForDepthEstimation(config)
    with torch.no_grad():
        network.fov_model.head.layers[-1].bias.fill_(55.0)  # degrees
        network.head.layers[-2].bias.fill_(0.6)  # of canonical inverse depth
    return network, DepthProImageProcessor(size={"height": 128, "width": 128})

def zoe():
    config = ZoeDepthConfig(
        backbone_config=BeitConfig(
            image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
            intermediate_size=32, use_relative_position_bias=True, reshape_hidden_states=False,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, bottleneck_features=8, bin_embedding_dim=8,
        num_relative_features=4, num_attractors=[4, 2, 1, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.1, "max_depth": 10.0}],
    )
    return ZoeDepthForDepthEstimation(config), ZoeDepthImageProcessor(
        size={"height": 96, "width": 128}, ensure_multiple_of=32
    )

answer = {}
for build in (anything, pro, zoe):
    torch.manual_seed(0)
    network, processor = build()
    for parameter in network.parameters():  # as initialised, the answer would be the same everywhere
        if build is not pro and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.2 * parameter[0].numel() ** -0.5)
    at = folder / build.__name__
    network.save_pretrained(at)
    processor.save_pretrained(at)
    ours, theirs = load_network(at), network.eval()
    said = {"title": title(ours), "bytes": working_bytes(ours, 48, 80, "automatic")}
    sizes = {"wide": (48, 80), "high": (90, 40), "tiny": (3, 2), "hair": (5, 600)}
    for name, (height, width) in sizes.items():
        # smooth, because the library rounds pictures to 8 bits and filters them in its own way
        y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
        picture = torch.stack([x.sin(), y.cos(), (x * y).sin()])[None] / 2 + 0.5
        picture = (picture * 255).round() / 255
        fx = None if build is not anything else torch.tensor([70.0])
        with torch.no_grad():
            found = measure(ours, picture, fx, sky_m=None)
        case = {
            "shape": list(found.depth_m.shape), "finite": bool(torch.isfinite(found.depth_m).all()),
            "positive": bool((found.depth_m > 0).all()), "least": found.depth_m.min().item(),
            "most": found.depth_m.max().item(), "sure": found.confidence.unique().tolist(),
            "unit": (found.normal.norm(dim=1) - 1).abs().max().item(),
            "fx": None if found.fx_px is None else found.fx_px.tolist(),
        }
        if name in ("wide", "high"):
            levels = (picture[0] * 255).round().to(torch.uint8)
            with torch.no_grad():
                inputs = processor(images=levels, return_tensors="pt")
                outputs = theirs(**inputs)
                extra = {"source_sizes": [(height, width)]} if build is zoe else {}
                known = processor.post_process_depth_estimation(
                    outputs, target_sizes=[(height, width)], **extra
                )[0]
            expected = known["predicted_depth"]
            seen = []
            hook = ours.network.register_forward_pre_hook(
                lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
            )
            with torch.no_grad():
                measure(ours, picture, fx)
            hook.remove()
            case["pixels"] = (
                (seen[0] - inputs["pixel_values"]).abs().max().item()
                if seen[0].shape == inputs["pixel_values"].shape
                else f"{tuple(seen[0].shape)} and not {tuple(inputs['pixel_values'].shape)}"
            )
            inside = (slice(4, -4), slice(4, -4))
            off = (found.depth_m[0][inside] / expected[inside] - 1).abs()
            case["off"] = off.mean().item()
            case["their_fx"] = float(known["focal_length"]) if known.get("focal_length") is not None else None
        said[name] = case
    if build is pro:
        with torch.no_grad():
            picture = torch.rand(2, 3, 40, 60)
            one = measure(ours, picture, torch.tensor([50.0])).depth_m
            two = measure(ours, picture, torch.tensor([100.0])).depth_m
            both = measure(ours, picture[:1], torch.tensor([50.0, 100.0])).depth_m
        said["twice"] = (two / one).median().item()
        said["both"] = (both - torch.stack([one[0], two[0]])).abs().max().item()
        said["tells"] = ours.estimates_focal_length
    half = ours.to(torch.bfloat16)
    with torch.no_grad():
        depth = measure(half, torch.rand(1, 3, 48, 80), torch.tensor([70.0]), sky_m=1e-6).depth_m
    said["half"] = [str(depth.dtype), bool(torch.isinf(depth).all())]
    answer[build.__name__] = said
print(json.dumps(answer))
"""


def in_the_host(script: str, *arguments: str) -> dict:
    """What a script prints last, as JSON, run by ComfyUI's Python in its folder."""
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or ""), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(host.python), "-c", script, *arguments]
    ran = subprocess.run(command, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("transformers")


@pytest.fixture(scope="module")
def answers(folders) -> dict:
    return in_the_host(SCRIPT, str(REPO), str(folders))


@pytest.mark.host
@pytest.mark.parametrize("kind", ["anything", "pro", "zoe"])
def test_every_kind_answers_in_metres(answers, kind):
    said = answers[kind]
    names = {"anything": "Depth Anything V2 metric", "pro": "Depth Pro", "zoe": "ZoeDepth"}
    assert said["title"].startswith(names[kind])
    assert said["bytes"] > 0
    for name, size in {
        "wide": [1, 48, 80],
        "high": [1, 90, 40],
        "tiny": [1, 3, 2],
        "hair": [1, 5, 600],
    }.items():
        case = said[name]
        assert case["shape"] == size
        assert case["finite"]
        assert case["positive"]
        assert case["sure"] == [1.0]
        assert case["unit"] < 1e-3
    assert said["half"] == ["torch.float32", True]


@pytest.mark.host
@pytest.mark.parametrize("kind", ["anything", "pro", "zoe"])
@pytest.mark.parametrize("shape", ["wide", "high"])
def test_the_network_sees_what_the_library_would_show_it(answers, kind, shape):
    case = answers[kind][shape]
    # the library may round to 8 bits after resizing; 1/255 over a deviation of 0.224 is 0.018
    assert case["pixels"] < 0.02
    assert case["most"] > 1.1 * case["least"]
    assert case["off"] < 0.01  # it enlarges maps with bicubic, which rings


@pytest.mark.host
def test_depth_pro_and_the_focal_length(answers):
    said = answers["pro"]
    assert said["tells"]
    for shape in ("wide", "high"):
        assert said[shape]["fx"] == [pytest.approx(said[shape]["their_fx"], rel=1e-3)]
    assert said["twice"] == pytest.approx(2.0, rel=1e-4)
    assert said["both"] < 1e-4
    assert answers["zoe"]["wide"]["fx"] is None


DAMAGE = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from lens_models.depth.hugging_face import load_metric_model
said = []
for folder in sys.argv[2:]:
    try:
        load_metric_model(folder)
        said.append("loaded")
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


@pytest.mark.host
def test_damaged_folders(answers, folders, tmp_path):
    source = folders / "anything"
    config, weights = (source / "config.json").read_text(), source / "model.safetensors"
    cases = {}
    for name in ("half", "none", "missing", "misshapen"):
        cases[name] = tmp_path / name
        cases[name].mkdir()
        (cases[name] / "config.json").write_text(config)
    (cases["half"] / "model.safetensors").write_bytes(weights.read_bytes()[:3000])
    tensors = load_file(weights)
    dropped = dict(tensors)
    del dropped["head.conv3.weight"]
    save_file(dropped, cases["missing"] / "model.safetensors", metadata={"format": "pt"})
    tensors["head.conv3.weight"] = torch.zeros(1, 9, 1, 1)
    save_file(tensors, cases["misshapen"] / "model.safetensors", metadata={"format": "pt"})
    half, none, missing, misshapen = in_the_host(DAMAGE, str(REPO), *map(str, cases.values()))
    for said in (half, none):
        assert said.startswith("ValueError: The weights in ")
        assert "cannot be read" in said
    for said in (missing, misshapen):
        assert "1 tensors are missing or of another shape (head.conv3.weight)" in said


def folder_with(tmp_path, config, **more):
    tmp_path.joinpath("config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, content in more.items():
        tmp_path.joinpath(f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "bert"}, "holds a network of type bert"),
        ({"model_type": "depth_anything"}, "gives relative depth"),
        ({}, "type None"),
        ("[1]", "not a description of a network"),
        ("{", "cannot be read"),
    ],
)
def test_other_folders(tmp_path, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_metric_model(folder_with(tmp_path, config))


def test_without_transformers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="ZoeDepth needs the transformers library: run `pip install"):
        load_metric_model(folder_with(tmp_path, {"model_type": "zoedepth"}))


def test_published_sizes(tmp_path):
    anything = Preparation.read(tmp_path, "depth_anything", {"patch_size": 14})
    assert anything.input_size(500, 741) == (518, 770)  # the library's least change of size
    assert anything.input_size(3000, 4000) == (518, 686)
    assert anything.input_size(518, 100_000) == (14, 2072)  # not 100,000 wide
    assert Preparation.read(tmp_path, "depth_pro", {}) == Preparation(1536, 1536, 1, HALF, HALF)
    assert Preparation.read(tmp_path, "zoedepth", {}).input_size(480, 640) == (384, 512)
    folder_with(tmp_path, {}, preprocessor_config={"size": 392, "image_std": [1, 1, 1]})
    told = Preparation.read(tmp_path, "depth_anything", {})
    assert (told.height, told.width, told.deviation) == (392, 392, (1, 1, 1))


def test_depth_pro_needs_a_focal_length_when_it_tells_none():
    def network(pixel_values):
        return types.SimpleNamespace(predicted_depth=pixel_values[:, 0] + 9, field_of_view=None)

    class Fake(torch.nn.Linear):
        config = types.SimpleNamespace(use_fov_model=False)

        def forward(self, pixel_values):
            return network(pixel_values)

    model = MetricModel(Fake(1, 1), "depth_pro", Preparation(8, 8, 1, HALF, HALF))
    with pytest.raises(ValueError, match="tells no focal length"):
        model.estimate_metres(torch.full((1, 3, 4, 6), 0.5), None)
    depth, fx = model.estimate_metres(torch.full((1, 3, 4, 6), 0.5), torch.tensor([12.0]))
    assert fx is None
    torch.testing.assert_close(depth, torch.full((1, 4, 6), 1 / (9 * 6 / 12.0)))
