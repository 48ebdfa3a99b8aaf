"""Building the networks of a run: from files, untrained at the published sizes, or tiny."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lens_models.depth.metric3d.config import PUBLISHED, Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2, load_metric3d
from lens_models.focus.predictor import FocusPredictor, load_predictor
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig

from ..config.run import Config
from ..config.sections import Paths
from .lora import held_in, share
from .models import ExifGenerator, FakeScore, FocusRoot, Networks
from .sdxl_unet import SDXL_CONFIG, build_unet, load_unet

#: SDXL's kinds of layer, with as few of them as the kinds allow.
TINY_UNET: dict[str, Any] = SDXL_CONFIG | {
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
TINY_VAE: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
SDXL_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024,
}  # fmt: skip
_VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "scaling_factor": 0.13025,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TINY_DEPTH = Metric3DConfig(
    embed_dim=16, depth=1, heads=1, ffn="mlp", multi_output=False,
    feature_dims=(8, 8), decoder_dim=8, hidden_dim=8, iterations=1,
)  # fmt: skip
TINY_VST = VSTConfig(
    image_px=32, width=16, heads=1, token_width=8, features=8, classes=0,
    backbone_depth=1, mutual_depth=1, token_depth=1, decoder_depth=1,
)  # fmt: skip
_RANDOM_DEPTH = "large"


def build(
    config: Config,
    device: torch.device | str = "cpu",
    starts: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Networks:
    """All networks that the run needs, the trainable ones in float32 and trainable, the others frozen.

    starts: weights of "generator" and "fake" where the config names another run's folder for them, as
    `run_folder.starting_weights` reads them. Untrained networks follow from the config's seed alone, so that
    every rank builds the same.
    Raises FileNotFoundError and ValueError, in a sentence, for weights that are missing or of other networks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        networks = _built(config, config.models, starts or {})
    dtype = getattr(torch, config.precision)
    networks.dtype, networks.autocast = dtype, dtype != torch.float32
    if networks.shared is not None:
        held_in(networks.shared, dtype)
    elif dtype != torch.float32:
        networks.teacher.to(dtype)
    networks.vae.to(getattr(torch, config.vae_precision))
    frozen = [net for net in (networks.teacher, networks.vae, networks.depth) if net is not None]
    further = (networks.focus, networks.focus_at_start, networks.shared)
    others = [networks.generator, *networks.fake, *(net for net in further if net is not None)]
    for network in (*others, *frozen):
        network.to(device).eval()
    for network in frozen:
        network.requires_grad_(False)
    if not config.train_generator:
        networks.generator.requires_grad_(False)
    if networks.focus is not None and not config.train_focus:
        networks.focus.requires_grad_(False)
    if config.checkpointing:
        for unet in (networks.generator, networks.teacher, *(fake.unet for fake in networks.fake)):
            unet.enable_gradient_checkpointing()
        if config.vae_unit == "block":
            networks.vae.enable_gradient_checkpointing()
        else:
            _checkpoint_resnets(networks.vae)
        if networks.depth is not None:
            networks.depth.gradient_checkpointing = True
    return networks


def _built(config: Config, paths: Paths, starts: Mapping[str, Mapping[str, Tensor]]) -> Networks:
    if paths.source == "files":
        teacher = load_unet(str(paths.teacher))
    else:
        teacher = build_unet(TINY_UNET if paths.source == "tiny" else None)
    shared = None
    if config.lora_rank:
        shared, alpha = teacher, config.lora_alpha or config.lora_rank
        teacher, generator, *fakes = share(shared, config.lora_rank, alpha)
    else:
        count = 3 if config.mu_fake == "separate" else 2
        generator, *fakes = (copy.deepcopy(teacher).float() for _ in range(count))
        for unet in (generator, *fakes):
            unet.requires_grad_(True)
    heads, by_set = 2 if config.critic_heads == "per_set" else 1, config.mu_fake == "dof_embed"
    fake = tuple(FakeScore(unet, config.latent_side, heads=heads, set_conditioned=by_set) for unet in fakes)
    networks = Networks(generator, teacher, fake, autoencoder(paths), shared=shared)
    if config.exif_embedding:
        networks.generator = ExifGenerator(generator)
    _start(networks, paths, starts)
    if config.stage == 2:
        networks.depth, networks.depth_canvas = _depth(paths), config.depth_canvas
    if config.stage == 2 and config.focus == "predicted":
        networks.focus = FocusRoot.of(_focus(paths))
        networks.focus_at_start = copy.deepcopy(networks.focus).requires_grad_(False)
    return networks


def _start(networks: Networks, paths: Paths, starts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give generator and fake score the weights that they start from, where these are not the teacher's."""
    for part, path, takers in (
        ("generator", paths.generator, (networks.generator,)),
        ("fake", paths.fake, networks.fake),
    ):
        if path is None:
            continue
        weights = starts.get(part)
        if weights is None:
            if networks.shared is not None:
                raise ValueError(
                    f"models.{part} is {path}, and with lora_rank it can only be a run's folder: the UNet's "
                    "own weights are models.teacher."
                )
            weights = load_unet(path).state_dict()
            takers = tuple(getattr(taker, "unet", taker) for taker in takers)
        for taker in takers:
            try:
                taker.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"The {part} of {path} is of another network: {error}") from error


def autoencoder(paths: Paths) -> Any:
    """SDXL's autoencoder, or a tiny one. Raises ValueError for a folder that holds none."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if paths.source == "files":
        try:
            return AutoencoderKL.from_pretrained(
                paths.vae, local_files_only=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{paths.vae} is not the folder of an autoencoder with config.json and weights: {error}"
            ) from error
    return AutoencoderKL(**_VAE, **(TINY_VAE if paths.source == "tiny" else SDXL_VAE))


def _checkpoint_resnets(vae: nn.Module) -> None:
    """Compute one resnet of the autoencoder again at a time, where diffusers does a block of them."""
    for layer in vae.modules():
        if type(layer).__name__ == "ResnetBlock2D":
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _depth(paths: Paths) -> Metric3Dv2:
    if paths.source == "files":
        return load_metric3d(str(paths.depth))
    if paths.source == "random":
        return Metric3Dv2(PUBLISHED[_RANDOM_DEPTH])
    network = Metric3Dv2(TINY_DEPTH)
    # as it is made, a tiny depth network says the same everywhere, and everything after it learns nothing:
    # variances of 2 / inputs let its signals keep their size
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2 and weight.requires_grad:
                weight.normal_(0.0, math.sqrt(2.0 / weight[0].numel()))
    return network


def _focus(paths: Paths) -> FocusPredictor:
    if paths.source == "files":
        return load_predictor(str(paths.focus))
    return FocusPredictor(VisualSaliencyTransformer(TINY_VST if paths.source == "tiny" else None))
