"""The estimate against the tables it was specified by, and its constants against the networks themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lens_models.depth.metric3d.config import PUBLISHED
from lens_models.depth.metric3d.network import Metric3Dv2
from lens_models.focus import VisualSaliencyTransformer, VSTConfig
from training.networks.sdxl_unet import build_unet
from training.run.budget import ACTIVATIONS, GIB, NETWORKS, Plan, day, estimate, memory_gb, report, turn_tflop

#: Where DMD2's LoRA sits: every attention, feed-forward, convolution and time projection.
LORA_LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
#: Spec and estimate round in different places; a missing network or pass would be more.
NEAR = {"rel": 0.1}


def vae() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


# --------------------------------------------------------------------- constants against real networks


class Stop(Exception):
    pass


def counted(build, call, dtype, trained):
    """TFLOP of a forward pass and GiB kept for its backward pass, on fake tensors of the published size."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    kept: dict[int, tuple[int, object]] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    # both keep torch's functions as they find them when they are imported, and put those back after loading:
    # imported inside, they would leave the replacement for good
    import diffusers.models.modeling_utils  # noqa: F401
    import transformers.initialization  # noqa: F401

    before, trunc_normal = torch.get_default_dtype(), nn.init.trunc_normal_
    try:
        # the numbers do not matter, and this one looks at them
        nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor
        torch.set_default_dtype(dtype)
        with FakeTensorMode():
            network = build().requires_grad_(trained)
            weights = {p.untyped_storage()._cdata for p in network.parameters()}
            hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
            with FlopCounterMode(display=False) as flops, hooks:
                out = call(network)
        del out
    finally:
        torch.set_default_dtype(before)
        nn.init.trunc_normal_ = trunc_normal
    return flops.get_total_flops() / 1e12, sum(size for size, _ in kept.values()) / GIB


def whole(unet):
    latent = torch.randn(1, 4, 128, 128, requires_grad=True)
    added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
    return unet(latent, torch.tensor([500]), torch.randn(1, 77, 2048), added_cond_kwargs=added).sample


def down_and_middle(unet):
    def stop(*_):
        raise Stop

    unet.mid_block.register_forward_hook(stop)
    with pytest.raises(Stop):
        whole(unet)


def decode(network):
    return network.decode(torch.randn(1, 4, 128, 128, requires_grad=True)).sample


def encode(network):
    return network.encode(torch.randn(1, 3, 1024, 1024, requires_grad=True)).latent_dist.mean


def depth(network):
    return network(torch.randn(1, 3, 616, 1064, requires_grad=True))


@pytest.mark.parametrize(
    ("rows", "build", "call", "dtype", "trained"),
    [
        (["unet trained"], build_unet, whole, torch.bfloat16, True),
        (["unet frozen"], build_unet, whole, torch.bfloat16, False),
        (["fake down+mid trained"], build_unet, down_and_middle, torch.bfloat16, True),
        (["fake down+mid frozen"], build_unet, down_and_middle, torch.bfloat16, False),
        (["decode fp32"], vae, decode, torch.float32, False),
        (["decode bf16"], vae, decode, torch.bfloat16, False),
        (["encode fp32"], vae, encode, torch.float32, False),
        (["encode bf16"], vae, encode, torch.bfloat16, False),
        (
            ["depth vit_l", "depth rounds vit_l"],
            lambda: Metric3Dv2(PUBLISHED["large"]),
            depth,
            torch.bfloat16,
            False,
        ),
        (
            ["depth vit_g", "depth rounds vit_g"],
            lambda: Metric3Dv2(PUBLISHED["giant2"]),
            depth,
            torch.bfloat16,
            False,
        ),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, list) else "",
)
def test_activations_and_arithmetic_are_the_networks(rows, build, call, dtype, trained):
    tflop, gib = counted(build, call, dtype, trained)
    # the table is rounded to three digits
    assert sum(ACTIVATIONS[row].tflop for row in rows) == pytest.approx(tflop, rel=0.01)
    assert sum(ACTIVATIONS[row].saved_gib for row in rows) == pytest.approx(gib, rel=0.01)


def test_parameters_are_the_networks():
    with torch.device("meta"):
        unet = build_unet()
        networks = {
            "unet": unet,
            "vst": VisualSaliencyTransformer(VSTConfig()),
            "vae": vae(),
            "depth_vit_l": Metric3Dv2(PUBLISHED["large"]),
            "depth_vit_g": Metric3Dv2(PUBLISHED["giant2"]),
            "gan_head": nn.Sequential(
                *(nn.Sequential(nn.Conv2d(1280, 1280, 4), nn.GroupNorm(32, 1280)) for _ in range(4)),
                nn.Conv2d(1280, 1, 1),
            ),
        }
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    up = sum(p.numel() for m in (unet.up_blocks, unet.conv_norm_out, unet.conv_out) for p in m.parameters())
    count["unet_down_mid"] = count["unet"] - up
    count["largest_unit"] = max(
        sum(p.numel() for p in m.parameters())
        for m in unet.modules()
        if type(m).__name__ == "Transformer2DModel"
    )
    count["lora_per_rank"] = sum(
        m.weight.shape[0] + m.weight[0].numel()
        for name, m in unet.named_modules()
        if name.endswith(LORA_LAYERS)
    )
    assert set(NETWORKS) - set(count) == {"text"}  # its library is not among what the tests need
    for name, parameters in count.items():
        assert NETWORKS[name] == pytest.approx(parameters, rel=1e-3), name


# -------------------------------------------------------------------------------- the spec's figures


@pytest.mark.parametrize(("gpus", "gb"), [(16, 5.6), (8, 11.3), (4, 22.6), (2, 45), (1, 90)])
def test_what_is_sharded(gpus, gb):
    memory = memory_gb(Plan(gpus=gpus, per_node=16))
    assert memory["state"] + memory["teacher"] == pytest.approx(gb, **NEAR)


def test_the_state_by_network():
    memory = memory_gb(Plan(gpus=1, depth="vit_g"))
    assert memory["state"] == pytest.approx(41.1 + 42.8 + 1.3, **NEAR)
    assert memory["teacher"] == pytest.approx(5.1, **NEAR)
    assert memory["frozen networks"] == pytest.approx(1.6 + 0.33 + 2.8 + 0.3, **NEAR)
    light = memory_gb(Plan(gpus=1))["frozen networks"]
    assert memory["frozen networks"] - light == pytest.approx(2.8 - 0.8, **NEAR)
    assert memory["gather buffers"] == 0
    assert 3 <= memory_gb(Plan(gpus=2))["gather buffers"] <= 5
    assert 2 <= memory["loss networks"] <= 5
    for relay in (True, False):
        assert memory_gb(Plan(relay=relay))["activations"] == pytest.approx(16, **NEAR)


@pytest.mark.parametrize(
    ("gpus", "low", "high"), [(16, 35, 45), (8, 35, 45), (4, 55, 55), (2, 65, 80)], ids=lambda v: str(v)
)
def test_memory_per_gpu(gpus, low, high):
    total = estimate(Plan(gpus=gpus, per_node=16, depth="vit_g")).total_gb
    assert 0.9 * low <= total <= 1.1 * high
    assert estimate(Plan(gpus=gpus)).fits


@pytest.mark.parametrize(
    ("vae", "unit", "decode_gib"),
    [("fp32", "block", 13.69), ("fp32", "resnet", 7.69), ("bf16", "block", 6.84), ("bf16", "resnet", 3.84)],
)
def test_the_decoder_is_what_activations_are(vae, unit, decode_gib):
    """The spec's columns "with AC" and "+ recomputed unit", saved and unit added."""
    assert memory_gb(Plan(vae=vae, vae_unit=unit))["activations"] == pytest.approx(decode_gib * GIB / 1e9)
    wasteful = memory_gb(Plan(vae=vae, checkpointing=False, relay=False))["activations"]
    assert wasteful * 1e9 / GIB == pytest.approx({"fp32": 22.7 + 11.8, "bf16": 11.4 + 5.9}[vae] + 6.41 + 0.15)


def test_one_card_of_24_gb():
    found = estimate(
        Plan(gpus=1, machine="RTX 4090", lora_rank=32, vae="bf16", vae_unit="resnet", checkpointing=True)
    )
    assert 19 * 0.9 <= found.total_gb <= 21 * 1.1
    assert found.fits
    for rank, millions, gib in ((32, 98, 1.5), (64, 197, 2.9)):
        assert rank * NETWORKS["lora_per_rank"] / 1e6 == pytest.approx(millions, **NEAR)
        assert rank * NETWORKS["lora_per_rank"] * 16 / GIB == pytest.approx(gib, **NEAR)


def test_arithmetic():
    turn = turn_tflop(Plan())
    assert turn["fake"] == pytest.approx(60, **NEAR)
    assert 17 <= turn["fake shallow"] - turn["fake"] <= 23
    assert turn["generator deep"] == pytest.approx(58, **NEAR)
    # 90 to 125: nothing computed twice, and everything
    assert turn["generator shallow"] == pytest.approx(125, **NEAR)
    quickest = turn_tflop(Plan(relay=False, checkpointing=False))
    assert quickest["generator shallow"] == pytest.approx(90, **NEAR)
    # more than the spec's, which counts the depth network without the rounds that refine it
    assert turn_tflop(Plan(depth="vit_g", depth_gradient=True))["generator shallow"] > 1.1 * 125
    assert estimate(Plan()).cycle_tflop == pytest.approx(415, **NEAR)


@pytest.mark.parametrize(
    ("machine", "gpus", "seconds", "updates"), [("A100", 16, 4.5, 14_000), ("H100", 8, 2.0, 25_000)]
)
def test_time(machine, gpus, seconds, updates):
    found = estimate(Plan(gpus=gpus, machine=machine))
    assert found.compute_s == pytest.approx(seconds, **NEAR)
    assert 1 <= found.traffic_s <= 2
    assert found.traffic_gb == pytest.approx(255, **NEAR)
    assert found.updates == pytest.approx(updates, **NEAR)


def test_the_papers_day():
    """57 h for 19 000 iterations at batch 2: half of that at batch 1, five iterations a cycle, 16 GPUs."""
    updates, samples, share = day(5 * 57 * 3600 / 19_000 / 2, 16, 1_500_000)
    assert updates == pytest.approx(3200, **NEAR)
    assert samples == pytest.approx(51_000, **NEAR)
    assert share == pytest.approx(0.034, **NEAR)


def test_disk():
    found = estimate(Plan())
    assert found.latents_gb == pytest.approx(400, **NEAR)
    assert found.checkpoint_gb == pytest.approx(0.75 * 85.2, rel=1e-3)


# ------------------------------------------------------------------------------------ options and text


def test_options_do_what_they_say():
    base = estimate(Plan())
    assert estimate(Plan(adam_bits=8)).memory_gb["state"] == pytest.approx(base.memory_gb["state"] * 10 / 16)
    assert estimate(Plan(batch=2)).cycle_tflop == 2 * base.cycle_tflop
    assert estimate(Plan(stage=1)).total_gb < base.total_gb
    assert estimate(Plan(gpus=1)).traffic_gb == 0
    assert memory_gb(Plan(gpus=16)) == memory_gb(Plan(gpus=8))  # sharded within a node


def test_the_report_says_the_figures():
    found, text = estimate(Plan(gpus=4)), report(4, 2)
    for value in (*found.memory_gb.values(), found.total_gb, found.compute_s, found.checkpoint_gb):
        assert f"{value:.1f}" in text
    assert "fits in 80 GB" in text
    assert "Computed, not measured" in text
    assert "does not fit in 80 GB" in report(1, 2)
    assert "LoRA of rank 64, 1 × RTX 4090" in report(1, 2, lora_rank=64, machine="RTX 4090")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stage": 3}, "stage is 3: use one of 1, 2"),
        ({"machine": "TPU"}, "use one of A100, H100, RTX 4090"),
        ({"gpus": 0}, "gpus is 0 and must be 1 at least"),
        ({"gpus": 12}, "12 GPUs do not fill nodes of 8"),
        ({"adam_bits": 4}, "use one of 32, 8"),
    ],
)
def test_plans_that_do_not_exist(wrong, said):
    with pytest.raises(ValueError, match=said):
        Plan(**wrong)
