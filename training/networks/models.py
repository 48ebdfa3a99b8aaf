"""The networks of a run behind one small interface.

Each is called as a whole (`network(...)`, never a child of it), so that any of them can be sharded with its
root as the unit that gathers weights: generator, teacher, fake score with critic, focus predictor. The
autoencoder and the depth network are frozen and small enough to be whole everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lens_models.camera import Camera, focal_px
from lens_models.focus.predictor import FocusPredictor
from lens_models.generator.exif_embedding import ExifEmbedding, camera_conditioned

from ..config.run import Config
from .lora import Adapted
from .sdxl_unet import time_ids

_GROUPS, _LEAST_PER_GROUP, _MOST_HALVINGS = 32, 8, 3


class Prompt(NamedTuple):
    """Encoded prompts: text `(B, L, D)`, pooled `(B, P)`."""

    text: Tensor
    pooled: Tensor

    @property
    def empty(self) -> Prompt:
        """The unconditional input: zeros, as SDXL has it for an empty prompt."""
        return Prompt(torch.zeros_like(self.text), torch.zeros_like(self.pooled))


class CriticHead(nn.Module):
    """The lowest features of a UNet to one logit.

    Up to three halvings (convolution 4, stride 2, group norm, SiLU), then a convolution over what is left,
    and a 1x1: for 1280 channels of 32 × 32 px the 104.9 million weights of DMD2.
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(_MOST_HALVINGS):
            if side >= 2 * 4:
                layers += [nn.Conv2d(channels, channels, 4, 2, 1), _norm(channels), nn.SiLU()]
                side //= 2
        last = min(4, side)
        layers += [nn.Conv2d(channels, channels, last, last), _norm(channels), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """`(B, C, h, w)` -> logits `(B,)`, computed in the head's own precision."""
        with torch.autocast(features.device.type, enabled=False):
            return self.layers(features.to(next(self.parameters()).dtype)).mean(dim=(1, 2, 3))


class FakeScore(nn.Module):
    """The UNet that follows the generator's distribution, and the critic that shares its lower half.

    heads: 1, or 2 for one critic's head per set. set_conditioned: a learned vector of the set, zero at
    the start, is added to the time embedding.
    """

    def __init__(self, unet: Any, side: int, *, heads: int = 1, set_conditioned: bool = False):
        """side: of the latents; unet: diffusers' UNet2DConditionModel."""
        super().__init__()
        self.unet: Any = unet
        channels = unet.config.block_out_channels
        lowest = side // 2 ** (len(channels) - 1)
        self.heads = nn.ModuleList([CriticHead(channels[-1], lowest) for _ in range(heads)])
        self.set_vector = None
        if set_conditioned:
            self.set_vector = nn.Embedding(2, unet.time_embedding.linear_2.out_features)
            nn.init.zeros_(self.set_vector.weight)

    def forward(
        self, noisy: Tensor, t: Tensor, prompt: Prompt, ids: Tensor, *, mode: str, shallow: bool
    ) -> Tensor:
        """mode "eps": `(B, C, H, W)`; mode "critic": logits `(B,)`."""
        added = {"text_embeds": prompt.pooled, "time_ids": ids}
        if isinstance(self.unet, Adapted):
            self.unet.select()
        with self._set_added(shallow):
            if mode == "eps":
                return self.unet(noisy, t, encoder_hidden_states=prompt.text, added_cond_kwargs=added).sample
            if mode == "critic":
                features = lower_half(self.unet, noisy, t, prompt.text, added)
                return self.heads[int(shallow) if len(self.heads) > 1 else 0](features)
        raise ValueError(f'"{mode}" is not a mode of the fake score: use eps or critic.')

    def _set_added(self, shallow: bool) -> AbstractContextManager[Any]:
        if self.set_vector is None:
            return nullcontext()
        vector = self.set_vector(torch.tensor(int(shallow), device=self.set_vector.weight.device))
        return self.unet.time_embedding.register_forward_hook(lambda _m, _i, out: out + vector.to(out))


class ExifGenerator(nn.Module):
    """A UNet conditioned on f-number and focal length by an embedding, which is trained with it."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet: Any = unet
        self.exif = ExifEmbedding(unet.time_embedding.linear_2.out_features)

    def enable_gradient_checkpointing(self) -> None:
        """Of the UNet."""
        self.unet.enable_gradient_checkpointing()

    def forward(self, noisy: Tensor, t: Tensor, *, f_number: Tensor, focal_mm: Tensor, **reads: Any) -> Any:
        """What diffusers' UNet gives; f_number, focal_mm: `(B,)`."""
        with camera_conditioned(self.unet, self.exif, f_number, focal_mm):
            return self.unet(noisy, t, **reads)


class FocusRoot(FocusPredictor):
    """A focus predictor with the same names of weights, whose call gives plain tensors, as sharding needs."""

    @classmethod
    def of(cls, predictor: FocusPredictor) -> FocusRoot:
        """The same networks, not copied."""
        settings = {k: v for k, v in predictor.settings.items() if k != "config"}
        root = cls(predictor.vst, **settings)
        root.scale_head = predictor.scale_head
        return root

    def forward(self, srgb: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distance `(B,)` m, scale `(B,)`, saliency `(B, H, W)`; see `FocusPredictor.forward`."""
        focus, saliency = super().forward(srgb, depth_m)
        # FSDP2 hangs its hooks on what is returned, and a view may lose them
        distance_m, scale = (torch.as_tensor(value).clone() for value in (focus.distance_m, focus.scale))
        return distance_m, scale, saliency.clone()


def lower_half(unet: Any, noisy: Tensor, t: Tensor, text: Tensor, added: Mapping[str, Tensor]) -> Tensor:
    """What diffusers' UNet has after its middle block, `(B, C, h, w)`; the rest is not computed."""
    embedding = unet.time_embedding(unet.get_time_embed(sample=noisy, timestep=t))
    embedding = embedding + unet.get_aug_embed(
        emb=embedding, encoder_hidden_states=text, added_cond_kwargs=dict(added)
    )
    x = unet.conv_in(noisy)
    for block in unet.down_blocks:
        reads = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
        x, _ = block(x, embedding, **reads)
    return unet.mid_block(x, embedding, encoder_hidden_states=text)


@dataclass(eq=False)
class Networks:
    """All networks of a run, and how they are called.

    fake: one, or two for deep and shallow. depth, focus, focus_at_start: stage 2; the last is a frozen copy.
    shared: the UNet that the LoRAs are on. dtype: what UNets take in; autocast: they hold float32 and compute
    in dtype (not when sharded with a precision of their own). exact: of everything between the networks.
    """

    # Any: torch and diffusers do not say what their modules take
    generator: Any
    teacher: Any
    fake: tuple[FakeScore, ...]
    vae: Any
    depth: Any = None
    focus: Any = None
    focus_at_start: Any = None
    shared: Any = None
    depth_canvas: str | tuple[int, int] = ""
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    exact: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the latents are."""
        return next(self.vae.parameters()).device

    def trainable(self, config: Config) -> dict[str, nn.Module]:
        """The networks that this run trains, by the names they have in a checkpoint."""
        names: dict[str, nn.Module] = {"fake": self.fake[0]}
        if len(self.fake) > 1:
            names["fake_shallow"] = self.fake[1]
        if config.train_generator:
            names["generator"] = self.generator
        if self.focus is not None and config.train_focus:
            names["focus"] = self.focus
        return names

    def fake_for(self, shallow: bool) -> FakeScore:
        """The fake score of a set."""
        return self.fake[int(shallow) if len(self.fake) > 1 else 0]

    @torch.no_grad()
    def warm_up(self, config: Config, prompt: Prompt) -> None:
        """Run each trainable network once without gradients, while all of its weights are trainable.

        FSDP2 settles at the first forward which dtype a gradient is reduced in, from what is trainable then.
        A network that is frozen at that moment fails in bfloat16 when it is trained later.
        """
        count, side = prompt.text.shape[0], config.latent_side
        noisy = torch.zeros(count, 4, side, side, device=self.device)
        t = torch.zeros(count, dtype=torch.long, device=self.device)
        for shallow in (False, True)[: max(len(self.fake), len(self.fake[0].heads))]:
            self.fake_eps(noisy, t, prompt, shallow)
            self.logits(noisy, t, prompt, shallow)
        if config.train_generator:
            one = torch.ones(count, device=self.device)
            self.student_eps(noisy, t, prompt, one, one)
        if self.focus is not None and config.train_focus:
            picture = torch.rand(count, 3, config.size_px, config.size_px, device=self.device)
            self.focus(picture, 1.0 + picture[:, 0])

    def student_eps(
        self, noisy: Tensor, t: Tensor, prompt: Prompt, f_number: Tensor, focal_mm: Tensor
    ) -> Tensor:
        """The generator's eps, in `exact` like all results here; f_number, focal_mm: `(B,)`."""
        camera = {}
        if isinstance(self.generator, ExifGenerator):
            camera = {"f_number": f_number.to(self.device), "focal_mm": focal_mm.to(self.device)}
        return self._eps(self.generator, noisy, t, prompt, **camera)

    def teacher_eps(self, noisy: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """The teacher's eps with classifier-free guidance, in one call: uncond + g (cond − uncond)."""
        both = Prompt(*(torch.cat(pair) for pair in zip(prompt, prompt.empty, strict=True)))
        eps = self._eps(self.teacher, noisy.repeat(2, 1, 1, 1), t.repeat(2), both)
        conditional, unconditional = eps.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def fake_eps(self, noisy: Tensor, t: Tensor, prompt: Prompt, shallow: bool) -> Tensor:
        """The fake score's eps, without guidance."""
        return self._fake(noisy, t, prompt, shallow, "eps")

    def logits(self, noisy: Tensor, t: Tensor, prompt: Prompt, shallow: bool) -> Tensor:
        """The critic's opinion of diffused latents, `(B,)`: above 0 for a photo."""
        return self._fake(noisy, t, prompt, shallow, "critic")

    def decode(self, latent: Tensor) -> Tensor:
        """sRGB `(B, 3, H, W)`, about 0..1 and not held there."""
        seen = (latent / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(seen).sample.to(self.exact) * 0.5 + 0.5

    def encode(self, srgb: Tensor, noise: Tensor | None) -> Tensor:
        """The latent of a picture: drawn with this unit noise, or the mean without."""
        found = self.vae.encode((2.0 * srgb - 1.0).to(self.vae.dtype)).latent_dist
        return self.latent(found.mean, found.std, noise)

    def latent(self, mean: Tensor, std: Tensor, noise: Tensor | None) -> Tensor:
        """The latent of the autoencoder's mean and standard deviation, in the UNet's units."""
        mean = mean.to(self.device, self.exact)
        drawn = mean if noise is None else mean + std.to(mean) * noise.to(mean)
        return drawn * self.vae.config.scaling_factor

    def depth_m(self, srgb: Tensor, camera: Camera) -> Tensor:
        """Depth `(B, H, W)`, m; differentiable with respect to the picture."""
        fx_px = focal_px(cast(Any, camera.focal_mm), cast(Any, camera.sensor_mm), srgb.shape[-1])
        return self.depth.estimate(srgb, fx_px, canvas=self.depth_canvas)

    def _eps(self, unet: Any, noisy: Tensor, t: Tensor, prompt: Prompt, **camera: Tensor) -> Tensor:
        noisy, prompt, ids = self._inputs(noisy, prompt)
        added = {"text_embeds": prompt.pooled, "time_ids": ids}
        with self._computing():
            eps = unet(noisy, t, encoder_hidden_states=prompt.text, added_cond_kwargs=added, **camera).sample
            return eps.to(self.exact)

    def _fake(self, noisy: Tensor, t: Tensor, prompt: Prompt, shallow: bool, mode: str) -> Tensor:
        noisy, prompt, ids = self._inputs(noisy, prompt)
        with self._computing():
            return self.fake_for(shallow)(noisy, t, prompt, ids, mode=mode, shallow=shallow).to(self.exact)

    def _inputs(self, noisy: Tensor, prompt: Prompt) -> tuple[Tensor, Prompt, Tensor]:
        # picture sizes stay float32: bfloat16 would round those above 256
        ids = time_ids(noisy).to(self.device, torch.float32)
        prompt = Prompt(*(p.to(self.device, self.dtype) for p in prompt))
        return noisy.to(self.device, self.dtype), prompt, ids

    def _computing(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Weights get no gradient inside the `with`; what flows through does."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _norm(channels: int) -> nn.GroupNorm:
    """Group norm of DMD2's 32 groups, or fewer: over one pixel a group of one channel is always 0."""
    most = max(1, min(_GROUPS, channels // _LEAST_PER_GROUP))
    return nn.GroupNorm(next(n for n in range(most, 0, -1) if channels % n == 0), channels)
