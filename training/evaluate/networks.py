"""The networks of an evaluation, loaded when a method first needs them and kept until released."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lens_models.camera import focal_px
from lens_models.depth.metric3d.network import load_metric3d
from lens_models.focus.predictor import load_predictor
from lens_models.generator.card import read_card
from lens_models.generator.exif_embedding import ExifEmbedding, exif_embedding_from, load_exif_embedding
from lens_models.generator.schedule import FOUR_STEPS
from lens_models.weights import load_strict, read_weights

from ..config.load import ConfigError, find_config
from ..config.run import Config, load_config
from ..config.sections import Paths
from ..export.export import predictor_from
from ..export.lora_names import merge
from ..networks.build import TINY_UNET, autoencoder, build
from ..networks.models import FocusRoot
from ..networks.models import Networks as TrainingNetworks
from ..networks.sdxl_unet import build_unet, load_unet
from ..networks.text import TextEncoders, build_text
from ..run.run_folder import is_run, read_run
from .camera_tokens import CameraTokens
from .metrics.preparation import from_folder
from .options import Evaluation, Student

_T = TypeVar("_T")
_N = TypeVar("_N", bound=nn.Module)
_TINY_HEAD = 0.05
#: What stays when a method is done.
_SHARED = ("sdxl", "text", "vae", "depth", "tiny networks", "focus None")


@dataclass(frozen=True, eq=False)
class StudentNetwork:
    """A generator of few steps, its EXIF head where it has one, and its timesteps."""

    unet: Any
    timesteps: tuple[int, ...] = FOUR_STEPS
    exif: ExifEmbedding | None = None


@dataclass(frozen=True, eq=False)
class TokenNetworks:
    """SD 2.1 with Camera Settings as Tokens. velocity: it predicts v and not noise."""

    unet: Any
    vae: Any
    tokenizer: Any
    encoder: Any
    tokens: CameraTokens
    velocity: bool


def _once(make: Callable[..., _T]) -> Callable[..., _T]:
    """Make a network when it is first asked for; untrained weights follow from the seed and its name."""

    @wraps(make)
    def get(self: NetworkCache, *names: str | None) -> _T:
        key = " ".join([make.__name__.strip("_").replace("_", " "), *map(str, names)])
        if key not in self._made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"{self.config.seed} {key}".encode()))
                self._made[key] = make(self, *names)
        return self._made[key]

    return get


class NetworkCache:
    """Networks by what they are for; every one is made once. scenes: a folder for sharp pictures, or None.

    Methods raise ConfigError that names the setting where weights are not given, and what the loaders raise.
    """

    def __init__(
        self, config: Evaluation, device: torch.device | str | None = None, scenes: Path | None = None
    ):
        self.config, self.scenes = config, scenes
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tiny = config.source == "tiny"
        self._dtype: torch.dtype = getattr(torch, config.precision)
        self._made: dict[str, Any] = {}

    def release(self) -> None:
        """Let go what few methods share: students with their focus predictors, ControlNet, SD 2.1."""
        self._made = {key: network for key, network in self._made.items() if key in _SHARED}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def decode(self, latent: Tensor) -> Tensor:
        """SDXL's autoencoder: sRGB `(B, 3, H, W)`, held in 0..1."""
        return decoded(self._vae(), latent)

    def depth_m(self, srgb: Tensor, focal_mm: float) -> Tensor:
        """Depth `(B, H, W)`, m."""
        fx_px = focal_px(focal_mm, self.config.sensor_mm, srgb.shape[-1])
        return self._depth().estimate(srgb, fx_px, canvas=self.config.depth_canvas)

    @_once
    def text(self) -> TextEncoders:
        """SDXL's two encoders."""
        return build_text(self._training_config(), self.device)

    def _given(self, name: str) -> str:
        path = getattr(self.config, name)
        if path is None:
            raise ConfigError(f"{name} is not set, and this method needs it: give the path of its weights.")
        return path

    def _student_config(self, name: str) -> Student:
        if name not in self.config.students:
            known = ", ".join(sorted(self.config.students)) or "none"
            raise ConfigError(
                f"students.{name} is not set, and this method needs it: give its generator (set: {known})."
            )
        return self.config.students[name]

    def _ready(self, network: _N, dtype: torch.dtype = torch.float32) -> _N:
        network = network.to(self.device).eval().requires_grad_(False)
        if any(p.dtype != dtype for p in network.parameters()):
            network.to(dtype)
        return network

    def _training_config(self) -> Config:
        if self._tiny:
            return load_config(find_config("smoke_cpu"), [f"seed={self.config.seed}"])
        base = Path(self._given("base"))
        paths = Paths(teacher=str(base / "unet"), vae=str(base / "vae"), text=str(base))
        return Config(stage=1, models=paths)

    @_once
    def _tiny_networks(self) -> TrainingNetworks:
        return build(self._training_config(), self.device)

    @_once
    def sdxl(self) -> Any:
        """SDXL's UNet, without distillation."""
        unet = build_unet(TINY_UNET) if self._tiny else load_unet(Path(self._given("base")) / "unet")
        return self._ready(unet, self._dtype)

    @_once
    def student(self, name: str) -> StudentNetwork:
        """A trained generator; name: of `students`."""
        if self._tiny:
            unet = self._ready(build_unet(TINY_UNET), self._dtype)
            head = ExifEmbedding(unet.time_embedding.linear_2.out_features, 8)
            with torch.no_grad():  # a fresh head adds nothing, and every aperture would look the same
                head.linear_2.weight.normal_(0.0, _TINY_HEAD)
            return StudentNetwork(unet, exif=self._ready(head))
        path, head, steps = Path(self._student_config(name).generator), None, FOUR_STEPS
        if is_run(path):
            state = read_run(path)
            steps = state.timesteps
            if "lora" in state.tensors:
                unet = load_unet(Path(self._given("base")) / "unet")
                merge(unet, state.tensors["lora"], state.lora_alpha)
            else:
                with torch.device("meta"):
                    unet = build_unet(state.unet_config)
                load_strict(unet, state.tensors["generator"], f"The generator of {path}")
            if "exif" in state.tensors:
                head = exif_embedding_from(state.tensors["exif"], str(path))
        else:
            unet = load_unet(path)
            if path.is_file():
                head, steps = load_exif_embedding(path), read_card(path).timesteps or FOUR_STEPS
        head = None if head is None else self._ready(head)
        return StudentNetwork(self._ready(unet, self._dtype), steps, head)

    @_once
    def _vae(self) -> Any:
        if self._tiny:
            return self._tiny_networks().vae
        return self._ready(autoencoder(self._training_config().models))

    @_once
    def _depth(self) -> Any:
        if self._tiny:
            return self._tiny_networks().depth
        return self._ready(load_metric3d(self._given("depth")))

    @_once
    def focus(self, student: str | None) -> FocusRoot:
        """The focus predictor that was trained with a student, or the untrained one."""
        if self._tiny:
            return self._tiny_networks().focus.requires_grad_(False)
        path = None if student is None else self._student_config(student).focus
        path = self._given("focus") if path is None else path
        if is_run(path):
            state = read_run(path)
            if "focus" not in state.tensors:
                raise ValueError(
                    f"{path} has trained no focus predictor: leave students.{student}.focus out."
                )
            predictor = predictor_from(state.tensors["focus"], state.predictor)
        else:
            predictor = load_predictor(path)
        return self._ready(FocusRoot.of(predictor))

    @_once
    def controlnet(self) -> Any:
        """A depth ControlNet of SDXL."""
        from diffusers.models.controlnets.controlnet import ControlNetModel

        if self._tiny:
            network: Any = ControlNetModel.from_unet(self.sdxl())
            with torch.no_grad():  # fresh, its residuals are 0 whatever it sees
                for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
                    layer.weight.normal_(0.0, _TINY_HEAD)
        else:
            network = from_folder(ControlNetModel, self._given("controlnet"))
        return self._ready(network, self._dtype)

    @_once
    def camera_tokens(self) -> TokenNetworks:
        """SD 2.1 that reads the camera as tokens."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        velocity, given = False, self.config.camera_tokens
        if self._tiny:
            text: Any = self.text()
            width, vae = text.first.config.hidden_size, self._tiny_networks().vae
            # as older models have it: text alone, and no size
            unsized = {k: v for k, v in TINY_UNET.items() if not k.startswith(("addition_", "projection_"))}
            unet = build_unet(unsized | {"cross_attention_dim": width})
            tokenizer, encoder, tokens = text.tokenizers[0], text.first, CameraTokens(width)
        elif given is None:
            raise ConfigError(
                "camera_tokens is not set: row 5 needs SD 2.1 and the weights of Camera Settings as Tokens, "
                "which are research-only and yours to get."
            )
        else:
            folder = Path(given.model)
            unet = from_folder(UNet2DConditionModel, folder / "unet")
            vae = from_folder(AutoencoderKL, folder / "vae")
            tokenizer = from_folder(CLIPTokenizer, folder / "tokenizer")
            encoder = from_folder(CLIPTextModel, folder / "text_encoder")
            merge(unet, read_weights(given.lora).tensors, given.lora_alpha)
            tokens, read = CameraTokens(unet.config.cross_attention_dim), read_weights(given.tokens)
            load_strict(tokens, {name: t.float() for name, t in read.tensors.items()}, read.name)
            scheduler = folder / "scheduler" / "scheduler_config.json"
            if scheduler.is_file():
                settings = json.loads(scheduler.read_text(encoding="utf-8"))
                velocity = settings.get("prediction_type") == "v_prediction"
        vae, encoder, tokens = (self._ready(network) for network in (vae, encoder, tokens))
        return TokenNetworks(self._ready(unet, self._dtype), vae, tokenizer, encoder, tokens, velocity)


def decoded(vae: Any, latent: Tensor) -> Tensor:
    """sRGB of an autoencoder, held in 0..1; in the autoencoder's own precision."""
    latent = latent.to(next(vae.parameters()))
    return (vae.decode(latent / vae.config.scaling_factor).sample.float() * 0.5 + 0.5).clamp(0.0, 1.0)
