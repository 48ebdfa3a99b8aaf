"""Dr.Bokeh's way through a scene: its layers, and what a camera in front of them records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import blur
from ..camera import Camera, Focus, broadcast_batch, radius_line, usable_depth
from ..progress import Progress, progress_within
from ..scene import LensOptions, checked_scene, item, largest_radius_px, run_stop
from ..shape import ApertureShape
from .composite import composite
from .inpaint import Background
from .layer import Layer
from .sharpen import sharpened
from .split import split_layers
from .steady import SteadyCuts
from .subject import along_the_mask

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

#: Share of the work on a picture that goes into its layers, and share of that into sharpening the depth; for
#: the progress.
_SPLITTING, _SHARPENING = 0.7, 0.1


class LayeredLens:
    """A scene that keeps its layers, and photographs itself with any camera.

    Layers are split once for each picture and focus, for the widest aperture of a sweep, and serve all its
    cameras; they are split again only when the picture or the focus changes, or a wider aperture comes.

    radiance: `(B, C, H, W)` linear light, C = 3, or 4 with premultiplied alpha. depth_m: `(B, H, W)` metres,
        +inf = sky.
    subject: `(B, H, W)` mask 0..1 that becomes the matte of a layer of its own; depth beside its edge
        follows it.
    background: `(B, C, H, W)` radiance where the farthest layer is hidden, or a `Background` that fills.
    max_layers: at most so many layers.
    after: the lens of the frame before in a clip, near whose cuts those of this one stay.
    Raises ValueError when batches or sizes do not go together; the sentence names both numbers.
    """

    def __init__(
        self,
        radiance: Tensor,
        depth_m: Tensor,
        *,
        subject: Tensor | None = None,
        background: Tensor | Background | None = None,
        max_layers: int = 6,
        after: LayeredLens | None = None,
    ) -> None:
        if max_layers < 1:
            raise ValueError(f"max_layers is {max_layers}: use at least 1.")
        self.radiance, self.depth_m = checked_scene(radiance, depth_m)
        for name, part in {"subject": subject, "background": background}.items():
            if isinstance(part, Tensor) and part.shape[-2:] != radiance.shape[-2:]:
                raise ValueError(
                    f"{name} is {tuple(part.shape)} and the picture {tuple(radiance.shape)}: "
                    "both must have the same height and width."
                )
        if isinstance(background, Tensor):
            background = _with_channels(background.to(self.radiance), radiance.shape[1])
        self.subject, self.background, self.max_layers = subject, background, max_layers
        #: The layers of the last picture, front to back; empty before the first.
        self.layers: list[Layer] = []
        self._steady = SteadyCuts() if after is None else after._steady
        self._split_for: tuple[int, Focus, float] | None = None

    def photograph(
        self, focus: Focus, camera: Camera, *, rays: int = 0, **options: Unpack[LensOptions]
    ) -> Tensor:
        """What the lens records, `(B, C, H, W)`; every option as in `dr_bokeh_lens`."""
        return torch.cat(list(self.photographs(focus, camera, rays=rays, **options)))

    def photographs(
        self,
        focus: Focus,
        camera: Camera,
        *,
        shape: ApertureShape | None = None,
        rays: int = 0,
        max_radius_px: float | None = None,
        engine: str = "auto",
        on_progress: Progress | None = None,
        memory_bytes: int | None = None,
    ) -> Iterator[Tensor]:
        """The pictures of `photograph` one by one, `(1, C, H, W)` each."""
        blur.check_engine(engine)
        largest_radius_px(max_radius_px, *self.radiance.shape[-2:])
        batches = {"pictures": self.radiance, "depths": self.depth_m}
        batches |= {"subjects": self.subject, "backgrounds": self.background}
        parts = {name: part for name, part in batches.items() if isinstance(part, Tensor)}
        count = broadcast_batch(
            **{name: part.shape[0] for name, part in parts.items()},
            focus_settings=focus.batch,
            cameras=camera.batch,
        )
        stop = 0
        for i in range(count):
            splitting = 0.0
            if i == stop:
                stop, splitting = run_stop(i, count, focus, *parts.values()), _SPLITTING
                report = progress_within(on_progress, i, i + splitting, count)
                self.split(focus.part(i, i + 1), camera.part(i, stop), i, on_progress=report)
            yield composite(
                self.layers,
                focus.part(i, i + 1),
                camera.part(i, i + 1),
                shape=shape,
                rays=rays,
                max_radius_px=max_radius_px,
                engine=engine,
                on_progress=progress_within(on_progress, i + splitting, i + 1, count),
                memory_bytes=memory_bytes,
            )

    def split(
        self, focus: Focus, camera: Camera, index: int = 0, *, on_progress: Progress | None = None
    ) -> list[Layer]:
        """The layers of one picture for all of a sweep's cameras, soft edges of its depth sharpened.

        focus: single; camera: one or many, of which the widest counts. index: of the picture in its batch.
        on_progress: called with (done, total) pieces of work; may raise to interrupt.
        Layers that are there already for this picture and focus, and for an aperture as wide, are returned.
        """
        radiance, depth_m = item(self.radiance, index), usable_depth(item(self.depth_m, index))
        scales = radius_line(focus, camera, radiance.shape[-1])[1]
        widest, px_per_inverse_m = int(scales.argmax()), scales.max().item()
        if self._split_for is not None:
            at, its_focus, widest_px = self._split_for
            if index == at and px_per_inverse_m <= widest_px and _equal(focus, its_focus):
                return self.layers
        self.layers, self._split_for = [], None  # a large picture has no room for these and new ones
        subject = None if self.subject is None else item(self.subject, index)
        inverse = 1.0 / depth_m[0].detach()
        hard = inverse
        if subject is not None:
            hard = along_the_mask(hard, subject[0].detach().to(hard), px_per_inverse_m)
        sharpening = progress_within(on_progress, 0.0, _SHARPENING)
        hard = sharpened(radiance[0, :3], hard, px_per_inverse_m, sharpening)
        self.layers = split_layers(
            radiance,
            # the edge moves, the gradient stays with the depth that was given
            torch.where(hard == inverse, depth_m, 1.0 / hard),
            focus,
            camera.part(widest, widest + 1),
            subject=subject,
            background=item(self.background, index)
            if isinstance(self.background, Tensor)
            else self.background,
            max_layers=self.max_layers,
            steady=self._steady,
            on_progress=progress_within(on_progress, _SHARPENING, 1.0),
        )
        self._split_for = index, focus, px_per_inverse_m
        return self.layers


def _equal(one: Focus, other: Focus) -> bool:
    """Whether two single settings are the same."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(bool((torch.as_tensor(a) == torch.as_tensor(b)).all()) for a, b in pairs)


def _with_channels(plate: Tensor, channels: int) -> Tensor:
    """A plate with the picture's channels: opaque where the picture has transparency and the plate none."""
    if plate.shape[1] == channels:
        return plate
    return plate[:, :3] if channels == 3 else torch.cat([plate, torch.ones_like(plate[:, :1])], dim=1)
