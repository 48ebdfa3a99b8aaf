"""The networks of an evaluation, loaded when a method first asks for them and kept until let go."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lens_models.camera import Camera, focal_px
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
from ..networks.build import TINY_UNET, build
from ..networks.models import FocusRoot
from ..networks.models import Networks as TrainingNetworks
from ..networks.sdxl_unet import build_unet, load_unet
from ..networks.text import TextEncoders, build_text
from ..run.run_folder import is_run, read_run
from .camera_tokens import CameraTokens
from .lora import merge
from .options import Evaluation

_T = TypeVar("_T")
_TINY_HEAD = 0.05
#: What stays when a method is done.
_SHARED = ("sdxl", "text", "vae", "depth", "tiny", "focus None")


@dataclass(frozen=True, eq=False)
class StudentNetwork:
    """A generator of few steps, its EXIF head where it has one, and its timesteps."""

    unet: nn.Module
    timesteps: tuple[int, ...] = FOUR_STEPS
    exif: ExifEmbedding | None = None


@dataclass(frozen=True, eq=False)
class TokenNetworks:
    """SD 2.1 with Camera Settings as Tokens. velocity: it predicts v and not noise."""

    unet: nn.Module
    vae: nn.Module
    tokenizer: Any
    encoder: nn.Module
    tokens: CameraTokens
    velocity: bool


class NetworkCache:
    """Networks by what they are for; every one is made once.

    Methods raise ConfigError that names the setting where weights are not given, and what the loaders raise.
    """

    def __init__(self, config: Evaluation, device: torch.device | str | None = None):
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._made: dict[str, Any] = {}

    def release(self) -> None:
        """Let go what few methods share: students with their focus predictors, ControlNet, SD 2.1."""
        self._made = {key: network for key, network in self._made.items() if key in _SHARED}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def sdxl(self) -> nn.Module:
        """SDXL's UNet, without distillation."""
        return self._once("sdxl", self._sdxl)

    def text(self) -> TextEncoders:
        """SDXL's two encoders."""
        return self._once("text", lambda: build_text(self._training_config(), self.device))

    def student(self, name: str) -> StudentNetwork:
        """A trained generator; name: of `students`."""
        return self._once(f"student {name}", lambda: self._student(name))

    def decode(self, latent: Tensor) -> Tensor:
        """SDXL's autoencoder: sRGB `(B, 3, H, W)`, held in 0..1."""
        return decoded(self._once("vae", self._vae), latent)

    def depth_m(self, srgb: Tensor, focal_mm: float) -> Tensor:
        """Depth `(B, H, W)`, m."""
        network = self._once("depth", self._depth)
        fx_px = focal_px(focal_mm, self.config.sensor_mm, srgb.shape[-1])
        return network.estimate(srgb, fx_px, canvas=self.config.depth_canvas)

    def focus(self, student: str | None) -> FocusRoot:
        """The focus predictor that was trained with a student, or the untrained one."""
        return self._once(f"focus {student}", lambda: self._focus(student))

    def controlnet(self) -> nn.Module:
        """A depth ControlNet of SDXL."""
        return self._once("controlnet", self._controlnet)

    def camera_tokens(self) -> TokenNetworks:
        """SD 2.1 that is told the camera by tokens."""
        return self._once("camera tokens", self._camera_tokens)

    def _once(self, key: str, make: Callable[[], _T]) -> _T:
        if key not in self._made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"{self.config.seed} {key}".encode()))
                self._made[key] = make()
        return self._made[key]

    @property
    def _tiny(self) -> bool:
        return self.config.source == "tiny"

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.config.precision)

    def _given(self, name: str) -> str:
        path = getattr(self.config, name)
        if path is None:
            raise ConfigError(f"{name} is not set, and this method needs it: give the path of its weights.")
        return path

    def _asked(self, name: str):
        if name not in self.config.students:
            known = ", ".join(sorted(self.config.students)) or "none"
            raise ConfigError(
                f"students.{name} is not set, and this method needs it: give its generator (set: {known})."
            )
        return self.config.students[name]

    def _ready(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
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

    def _tiny_networks(self) -> TrainingNetworks:
        return self._once("tiny", lambda: build(self._training_config(), self.device))

    def _sdxl(self) -> nn.Module:
        unet = build_unet(TINY_UNET) if self._tiny else load_unet(Path(self._given("base")) / "unet")
        return self._ready(unet, self._dtype)

    def _student(self, name: str) -> StudentNetwork:
        if self._tiny:
            unet = self._ready(build_unet(TINY_UNET), self._dtype)
            head = ExifEmbedding(unet.time_embedding.linear_2.out_features, 8)
            with torch.no_grad():  # a fresh head adds nothing, and every aperture would look the same
                head.linear_2.weight.normal_(0.0, _TINY_HEAD)
            return StudentNetwork(unet, exif=self._ready(head))
        path = Path(self._asked(name).generator)
        if not is_run(path):
            head = load_exif_embedding(path) if path.is_file() else None
            steps = read_card(path).timesteps if path.is_file() else None
            head = None if head is None else self._ready(head)
            return StudentNetwork(self._ready(load_unet(path), self._dtype), steps or FOUR_STEPS, head)
        state = read_run(path)
        if "lora" in state.tensors:
            unet = merge(
                load_unet(Path(self._given("base")) / "unet"), state.tensors["lora"], state.lora_alpha
            )
        else:
            with torch.device("meta"):
                unet = build_unet(state.unet_config)
            load_strict(unet, state.tensors["generator"], f"The generator of {path}")
        head = state.tensors.get("exif")
        head = None if head is None else self._ready(exif_embedding_from(head, str(path)))
        return StudentNetwork(self._ready(unet, self._dtype), state.timesteps, head)

    def _vae(self) -> nn.Module:
        if self._tiny:
            return self._tiny_networks().vae
        return self._ready(_autoencoder(Path(self._given("base")) / "vae"))

    def _depth(self) -> nn.Module:
        if self._tiny:
            return self._tiny_networks().depth
        return self._ready(load_metric3d(self._given("depth")))

    def _focus(self, student: str | None) -> FocusRoot:
        if self._tiny:
            return self._tiny_networks().focus.requires_grad_(False)
        path = None if student is None else self._asked(student).focus
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

    def _controlnet(self) -> nn.Module:
        from diffusers import ControlNetModel

        if self._tiny:
            network = ControlNetModel.from_unet(self.sdxl())
            with torch.no_grad():  # fresh, its residuals are 0 whatever it sees
                for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
                    layer.weight.normal_(0.0, _TINY_HEAD)
        else:
            network = _from_folder(ControlNetModel, self._given("controlnet"))
        return self._ready(network, self._dtype)

    def _camera_tokens(self) -> TokenNetworks:
        if self._tiny:
            text = self.text()
            width = text.first.config.hidden_size
            unet = build_unet(_without_sdxl(width))
            tokens = CameraTokens(width)
            networks = unet, self._tiny_networks().vae, text.tokenizers[0], text.first, tokens, False
        else:
            networks = self._read_camera_tokens()
        unet, vae, tokenizer, encoder, tokens, velocity = networks
        return TokenNetworks(
            self._ready(unet, self._dtype),
            self._ready(vae),
            tokenizer,
            self._ready(encoder),
            self._ready(tokens),
            velocity,
        )

    def _read_camera_tokens(self) -> tuple[Any, ...]:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        given = self.config.camera_tokens
        if given is None:
            raise ConfigError(
                "camera_tokens is not set: row 5 needs SD 2.1 and the weights of Camera Settings as Tokens, "
                "which are research-only and yours to get."
            )
        folder = Path(given.model)
        unet = _from_folder(UNet2DConditionModel, folder / "unet")
        merge(unet, read_weights(given.lora).tensors, given.lora_alpha)
        tokens = CameraTokens(unet.config.cross_attention_dim)
        read = read_weights(given.tokens)
        load_strict(tokens, {name: t.float() for name, t in read.tensors.items()}, read.name)
        told = folder / "scheduler" / "scheduler_config.json"
        kind = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        return (
            unet,
            _autoencoder(folder / "vae"),
            _from_folder(CLIPTokenizer, folder / "tokenizer"),
            _from_folder(CLIPTextModel, folder / "text_encoder"),
            tokens,
            kind.get("prediction_type") == "v_prediction",
        )


def decoded(vae: nn.Module, latent: Tensor) -> Tensor:
    """sRGB of an autoencoder, held in 0..1; in the autoencoder's own precision."""
    latent = latent.to(next(vae.parameters()))
    return (vae.decode(latent / vae.config.scaling_factor).sample.float() * 0.5 + 0.5).clamp(0.0, 1.0)


def swept(f_numbers: tuple[float, ...], focal_mm: float, sensor_mm: float, device: Any = "cpu") -> Camera:
    """A camera at many apertures."""
    return Camera(torch.tensor(f_numbers, device=device), focal_mm, sensor_mm)


def _autoencoder(folder: Path) -> nn.Module:
    from diffusers import AutoencoderKL

    return _from_folder(AutoencoderKL, folder)


def _from_folder(kind: Any, folder: str | Path) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} cannot be read as {kind.__name__}: {error}") from error


def _without_sdxl(width: int) -> dict[str, Any]:
    """The tiny UNet as older models have it: text alone, and no size."""
    added = ("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim")
    return {key: v for key, v in TINY_UNET.items() if key not in added} | {"cross_attention_dim": width}
