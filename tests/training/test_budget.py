"""The estimate against the tables it was specified by, and its constants against the networks themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lens_models.depth.metric3d.config import PUBLISHED
from lens_models.depth.metric3d.network import Metric3Dv2
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig
from training.networks.sdxl_unet import build_unet
from training.run.budget import CRITIC_GIB, GIB, MACHINES, NETWORKS, TFLOP, TrainingPlan, cost, report

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


def both_ways(network):
    return decode(network), encode(network)


@pytest.mark.parametrize(
    ("name", "build", "call", "dtype", "trained"),
    [
        ("unet", build_unet, whole, torch.bfloat16, True),
        ("unet_down_mid", build_unet, down_and_middle, torch.bfloat16, True),
        ("vae", vae, both_ways, torch.float32, False),
        ("depth", lambda: Metric3Dv2(PUBLISHED["large"]), depth, torch.bfloat16, False),
    ],
)
def test_activations_and_arithmetic_are_the_networks(name, build, call, dtype, trained):
    tflop, gib = counted(build, call, dtype, trained)
    # the table is rounded to three digits
    assert TFLOP[name] == pytest.approx(tflop, rel=0.01)
    if name == "unet_down_mid":
        assert pytest.approx(gib, rel=0.01) == CRITIC_GIB


def test_parameters_are_the_networks():
    with torch.device("meta"):
        unet = build_unet()
        networks = {
            "unet": unet,
            "vst": VisualSaliencyTransformer(VSTConfig()),
            "vae": vae(),
            "depth": Metric3Dv2(PUBLISHED["large"]),
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
    memory = cost(TrainingPlan(gpus=gpus, per_node=16)).memory_gb
    assert memory["state"] + memory["teacher"] == pytest.approx(gb, **NEAR)


def test_the_state_by_network():
    memory = cost(TrainingPlan(gpus=1)).memory_gb
    assert memory["state"] == pytest.approx(41.1 + 42.8 + 1.3, **NEAR)
    assert memory["teacher"] == pytest.approx(5.1, **NEAR)
    assert memory["frozen networks"] == pytest.approx(1.6 + 0.33 + 0.8 + 0.3, **NEAR)
    assert memory["gather buffers"] == 0
    assert 3 <= cost(TrainingPlan(gpus=2)).memory_gb["gather buffers"] <= 5
    assert 2 <= memory["loss networks"] <= 5
    assert cost(TrainingPlan()).memory_gb["activations"] == pytest.approx(16, **NEAR)


@pytest.mark.parametrize(
    ("stage", "gpus", "gb", "seconds"), [(1, 8, 22.4, 5.35), (2, 8, 37.5, 6.23), (2, 16, 37.5, 6.23)]
)
def test_the_published_configs(stage, gpus, gb, seconds):
    """What the figures were while every pass and every option was modelled."""
    plan = TrainingPlan(stage=stage, gpus=gpus)
    takes = cost(plan)
    assert takes.total_gb == pytest.approx(gb, **NEAR)
    assert takes.compute_s + takes.traffic_s == pytest.approx(seconds, **NEAR)


@pytest.mark.parametrize(
    ("gpus", "low", "high"), [(16, 35, 45), (8, 35, 45), (4, 45, 55), (2, 65, 80)], ids=lambda v: str(v)
)
def test_memory_per_gpu(gpus, low, high):
    assert 0.9 * low <= cost(TrainingPlan(gpus=gpus, per_node=16)).total_gb <= 1.1 * high
    assert cost(TrainingPlan(gpus=gpus)).total_gb <= MACHINES["A100"].memory_gb


@pytest.mark.parametrize(
    ("vae", "unit", "decode_gib"),
    [("fp32", "block", 13.69), ("fp32", "resnet", 7.69), ("bf16", "block", 6.84), ("bf16", "resnet", 3.84)],
)
def test_the_decoder_is_what_activations_are(vae, unit, decode_gib):
    """The spec's columns "with AC" and "+ recomputed unit", saved and unit added."""
    memory = cost(TrainingPlan(vae=vae, vae_unit=unit)).memory_gb
    assert memory["activations"] == pytest.approx(decode_gib * GIB / 1e9)


def test_one_card_of_24_gb():
    plan = TrainingPlan(gpus=1, machine="RTX 4090", lora_rank=32, vae="bf16", vae_unit="resnet")
    takes = cost(plan)
    assert 19 * 0.9 <= takes.total_gb <= 21 * 1.1
    assert "fits in 24 GB" in report(plan)
    for rank, millions, gib in ((32, 98, 1.5), (64, 197, 2.9)):
        assert rank * NETWORKS["lora_per_rank"] / 1e6 == pytest.approx(millions, **NEAR)
        assert rank * NETWORKS["lora_per_rank"] * 16 / GIB == pytest.approx(gib, **NEAR)


def test_arithmetic():
    deep = cost(TrainingPlan(stage=1)).tflop
    assert deep["fake score"] / 5 == pytest.approx(60, **NEAR)
    assert deep["generator"] == pytest.approx(58, **NEAR)
    both = cost(TrainingPlan()).tflop
    # half of the turns are shallow
    assert 17 <= 2 * (both["fake score"] - deep["fake score"]) / 5 <= 23
    assert 2 * both["generator"] - deep["generator"] == pytest.approx(125, **NEAR)
    assert sum(both.values()) == pytest.approx(415, **NEAR)
    assert cost(TrainingPlan(batch=2)).tflop["generator"] == 2 * both["generator"]


@pytest.mark.parametrize(
    ("machine", "gpus", "seconds", "updates"), [("A100", 16, 4.5, 14_000), ("H100", 8, 2.0, 25_000)]
)
def test_time(machine, gpus, seconds, updates):
    plan = TrainingPlan(gpus=gpus, machine=machine)
    takes = cost(plan)
    assert takes.compute_s == pytest.approx(seconds, **NEAR)
    assert 1 <= takes.traffic_s <= 2
    assert takes.traffic_gb == pytest.approx(255, **NEAR)
    assert takes.updates == pytest.approx(updates, **NEAR)
    assert cost(TrainingPlan(gpus=1)).traffic_gb == 0


def test_sharding_stays_within_a_node():
    assert cost(TrainingPlan(gpus=16)).memory_gb == cost(TrainingPlan(gpus=8)).memory_gb


def test_the_report_says_the_figures():
    plan = TrainingPlan(gpus=4)
    takes = cost(plan)
    text = report(plan)
    for value in (*takes.memory_gb.values(), takes.total_gb, takes.compute_s, takes.checkpoint_gb, 393.2):
        assert f"{value:.1f}" in text
    assert takes.checkpoint_gb == pytest.approx(0.75 * 85.2, rel=1e-3)
    assert "fits in 80 GB" in text
    assert "Computed, not measured" in text
    assert "does not fit in 80 GB" in report(TrainingPlan(gpus=1))
    lora = TrainingPlan(gpus=1, lora_rank=64, machine="RTX 4090")
    assert "LoRA of rank 64, 1 × RTX 4090" in report(lora)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stage": 3}, "stage is 3: use one of 1, 2"),
        ({"machine": "TPU"}, "use one of A100, H100, RTX 4090"),
        ({"gpus": 0}, "gpus is 0 and must be 1 at least"),
        ({"gpus": 12}, "12 GPUs do not fill nodes of 8"),
        ({"vae": "fp8"}, "use one of fp32, bf16"),
    ],
)
def test_plans_that_do_not_exist(wrong, said):
    with pytest.raises(ValueError, match=said):
        TrainingPlan(**wrong)
