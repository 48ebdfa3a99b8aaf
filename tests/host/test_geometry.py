"""The geometry of ComfyUI's own estimators, made by their own code, in ours: keys, shapes, infinities."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tools import provision
from tools.provision import REPO

pytestmark = pytest.mark.host

# Builds ComfyUI's own estimators, tiny or with few blocks and with random weights, and runs its own nodes.
GEOMETRY = """
import json, sys
repo, sys.argv = sys.argv[1], ["main.py", "--cpu", "--fp32-text-enc"]
sys.path[:0] = [".", repo]
import comfy.options
comfy.options.enable_args_parsing()
import torch
import comfy.ops
from comfy.ldm.depth_anything_3.model import DepthAnything3Net
from comfy.ldm.moge.model import MoGeModel, MoGeModelV1, MoGeModelV2
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_depth_anything_3 import DA3Inference
from comfy_extras.nodes_moge import MoGeInference
from lens_models.depth.convert import from_geometry, is_geometry

torch.set_num_threads(1)
torch.manual_seed(0)
CPU, HEIGHT, WIDTH = torch.device("cpu"), 96, 160
picture = torch.rand(2, HEIGHT, WIDTH, 3)

def random(network):
    for name, parameter in network.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=spread)
    return network.eval()

def stack(out):
    return dict(
        dim_in=[8] * 5 if out else [66, 2, 2, 2, 2], dim_res_blocks=[8] * 5, dim_out=[out] * 5,
        resamplers=["bilinear"] * 4, num_res_blocks=[1] * 5,
    )

backbone = dict(
    hidden_size=64, num_attention_heads=1, num_hidden_layers=4, layer_norm_eps=1e-6, use_swiglu_ffn=False
)
where = dict(dtype=torch.float32, device=CPU, operations=comfy.ops.manual_cast)
two = MoGeModelV2(
    encoder=dict(backbone=backbone, intermediate_layers=[0, 1, 2, 3], dim_out=64), neck=stack(None),
    points_head=stack(3), mask_head=stack(1), normal_head=stack(3), scale_head=dict(dims=[64, 8, 1]), **where,
)
one = MoGeModelV1(backbone=backbone, dim_upsample=[8, 8, 8], **where)

said = {}
def note(name, geometry, **options):
    found = from_geometry(geometry, **options)
    depth = found.depth
    measured = torch.isfinite(depth.metres) & depth.valid
    said[name] = {
        "keys": {k: list(v.shape) if hasattr(v, "shape") else v for k, v in geometry.items()},
        "geometry": is_geometry(geometry), "shape": list(depth.metres.shape),
        "warnings": list(found.warnings),
        "positive": bool((depth.metres > 0).all()), "sky": torch.isinf(depth.metres).float().mean().item(),
        "masked": torch.isinf(geometry["depth"]).float().mean().item(),
        "valid": depth.valid.float().mean().item(),
        "fx": None if depth.fx_px is None else depth.fx_px.tolist(),
        "K": geometry["intrinsics"].tolist() if "intrinsics" in geometry else None,
        "sky_map": (geometry["sky"] >= 0.5).float().mean().item() if "sky" in geometry else None,
        "ratio": (depth.metres / geometry["depth"])[measured].median().item(),
    }

for name, network in (("moge2", two), ("moge1", one)):
    model = MoGeModel(random(network).state_dict())
    note(name, MoGeInference.execute(model, picture, 0, 0.0, 2, True, True).args[0])
    assert model.version == ("v2" if name == "moge2" else "v1")

class Base(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.diffusion_model = network

def da3(**settings):
    network = DepthAnything3Net(
        backbone_name="vits", out_layers=[5, 7, 9, 11], head_features=16, head_out_channels=[8] * 4,
        **settings, **where,
    )
    return ModelPatcher(Base(random(network)), CPU, CPU)

metric = da3(head_type="dpt", head_dim_in=384, head_output_dim=1, head_use_sky_head=True)
sky = metric.model.diffusion_model.head.scratch.sky_output_conv2[-1]
sky.weight.data *= 300
sky.bias.data.zero_()
out = DA3Inference.execute(metric, picture, 140, "upper_bound_resize", {"mode": "mono"})
note("da3_metric", out.args[0], da3_resolution=140)
views = da3(
    head_type="dualdpt", head_dim_in=768, head_output_dim=2, cat_token=True, alt_start=4, qknorm_start=4,
    rope_start=4, has_cam_dec=True,
)
for mode in ({"mode": "mono"}, {"mode": "multiview", "ref_view_strategy": "first", "pose_method": "cam_dec"}):
    out = DA3Inference.execute(views, picture, 140, "upper_bound_resize", mode)
    note("da3_" + mode["mode"], out.args[0], da3_resolution=140)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def geometries():
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or ""), "OMP_NUM_THREADS": "1"}
    command = [str(host.python), "-c", GEOMETRY, str(REPO)]
    ran = subprocess.run(command, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


KEYS = {
    "moge1": {"image", "points", "depth", "intrinsics", "mask"},
    "moge2": {"image", "points", "depth", "intrinsics", "mask", "normal"},
    "da3_metric": {"image", "depth", "mode", "sky"},
    "da3_mono": {"image", "depth", "mode", "confidence"},
    "da3_multiview": {"image", "depth", "mode", "confidence", "extrinsics", "intrinsics"},
}


@pytest.mark.parametrize("name", KEYS)
def test_geometry_of_comfyui_is_understood(geometries, name):
    """The keys, shapes and infinities that Depth from Geometry relies on are those of the host's own code."""
    found = geometries[name]
    assert set(found["keys"]) == KEYS[name]
    assert found["keys"]["depth"] == found["shape"] == [2, 96, 160]
    assert found["geometry"]
    assert found["positive"]
    warnings = " ".join(found["warnings"])
    if name.startswith("moge"):
        assert 0 < found["masked"] < 1
        assert found["sky"] == pytest.approx(found["masked"])
        # normalised to the width
        assert found["fx"] == [pytest.approx(160 * k[0][0], rel=1e-5) for k in found["K"]]
        assert ("v1" in warnings) == (name == "moge1")
        assert found["ratio"] == 1.0
    if name == "da3_metric":
        assert 0 < found["sky_map"] < 1
        assert found["sky"] == pytest.approx(found["sky_map"])
        assert found["ratio"] == pytest.approx(50 / 36 * 140 / 300, rel=1e-5)
    if name == "da3_mono":
        assert "relative depth" in warnings
        assert found["fx"] is None
    if name == "da3_multiview":
        # its intrinsics are in pixels of the picture the network saw (140 wide) and not of the depth (160)
        assert [k[0][2] for k in found["K"][0]] == [70.0, 70.0]
        assert len(found["fx"]) == 2
