"""A picture with depth as layers that hide one another, and what a lens makes of a stack of layers.

Splitting: cut the depth between what hides and what is hidden (`cuts.py`), find how much of each edge
pixel is the nearer layer (`matting.py`), continue every layer under the nearer ones (`fill.py`), and
un-mix edge pixels so that the stack laid over itself is the picture again.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..camera import Camera, Focus, coc_px, inverse_depth, usable_depth
from ..light import linear_to_srgb
from ..memory import bands_of
from ..progress import Progress, progress_within
from ..scene import item
from .cuts import edges, geodesic_dilation, labels_of
from .inpaint import Background, push_pull
from .layer import Layer
from .matting import closed_form_matte
from .morphology import dilate, erode
from .steady import SteadyCuts

#: Side of the neighbourhood in which thin things (hair, wire) may leave traces that the depth misses, px.
_TRACE_SIDE = 17
#: Trust in the depth's own verdict inside an edge band: on the nearer side, on the farther side.
_TRUST_NEAR, _TRUST_FAR = 0.02, 0.002
#: Mattes this close to 0 or 1 are taken as 0 or 1.
_SNAP = 0.05
#: A pixel counts for a layer's colour if at least this much of it is the layer.
_PURE_NEAR, _PURE_FAR = 0.9, 0.8
#: Shares of the work done after the cuts, after the mattes and after the colours.
_CUTTING, _MATTING, _FILLING = 0.05, 0.65, 0.95
#: The stack must give the picture back to this, sRGB 0..1.
_RECOMPOSED = 0.5 / 255


def split_layers(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    subject: Tensor | None = None,
    background: Tensor | Background | None = None,
    max_layers: int = 6,
    steady: SteadyCuts | None = None,
    on_progress: Progress | None = None,
) -> list[Layer]:
    """Layers of a picture, front to back; over one another at zero aperture they are the picture.

    radiance: `(B, C, H, W)` linear, C = 3 or 4 (premultiplied alpha, split along with the colour).
    depth_m: `(B, H, W)` metres with the picture's size, +inf = sky, B = 1 or the picture's.
    focus, camera: single settings; they say which steps in depth matter and where a seam would show.
    subject: `(B, H, W)` mask 0..1 that is the matte of one layer, at the median depth of what it covers.
    background: `(B, C, H, W)` radiance of the farthest layer where it is hidden, or a `Background`.
    steady: what the layers of the frames before were cut at, for a clip; None makes one for the batch.
    on_progress: called with (done, total) pieces of work of one picture; may raise to interrupt.
    Pictures of a batch that need fewer layers get empty ones in front.

    Gradients reach radiance and depth through colours and distances; where the cuts lie, the mattes and
    the choice of pixels that fill a hole are constants.
    """
    stacks = []
    steady = steady or SteadyCuts()
    for b in range(radiance.shape[0]):
        plate = item(background, b) if isinstance(background, Tensor) else background
        mask = None if subject is None else item(subject, b)[0]
        depth = item(depth_m, b)[0]
        split = _Split(radiance[b : b + 1], depth, focus, camera, mask, max_layers, steady, on_progress)
        stacks.append(split.layers(plate))
    if len(stacks) == 1:
        return stacks[0]
    deepest = max(len(s) for s in stacks)
    for layers in stacks:
        blank = layers[0]
        empty = Layer(torch.zeros_like(blank.radiance), torch.zeros_like(blank.alpha), blank.depth_m)
        layers[:0] = [empty] * (deepest - len(layers))
    fields = ("radiance", "alpha", "depth_m")
    return [
        Layer(*(torch.cat([getattr(s[i], name) for s in stacks]) for name in fields)) for i in range(deepest)
    ]


class _Split:
    """One picture on its way into layers. Masks and mattes are `(H, W)`; index 0 is the nearest layer."""

    def __init__(self, radiance, depth_m, focus, camera, subject, max_layers, steady, on_progress) -> None:
        self.radiance, self.depth_m = radiance, usable_depth(depth_m)
        self.on_progress = on_progress
        with torch.no_grad():
            self.nearness = coc_px(depth_m[None], focus, camera, radiance.shape[-1])[0].div_(-2.0)
            cutting = progress_within(on_progress, 0.0, _CUTTING)
            cuts = steady.find(radiance, self.nearness, focus, camera, max_layers, cutting)
            self.label = labels_of(self.nearness, cuts)
            self.given = None if subject is None else self._set_apart(subject)
            self.count = int(self.label.max()) + 1
            self.edge = edges(self.nearness)
            encoded, matting = torch.empty_like(radiance[0, :3]), self._part(_CUTTING, _MATTING, 0)
            for band, *_ in bands_of(len(self.nearness)):
                encoded[:, band] = linear_to_srgb(radiance[0, :3, band].clamp(0.0, 1.0))
                if matting is not None:
                    matting(0, 1)
            self.mattes, self.bands = [], []
            for layer in range(self.count):
                matte, band = self._matte(layer, encoded)
                self.mattes.append(matte)
                self.bands.append(band)

    def _part(self, start: float, stop: float, layer: float, share: float = 1.0) -> Progress | None:
        """Progress of a share of a layer, of the work on all layers between `start` and `stop`."""
        each = (stop - start) / self.count
        return progress_within(self.on_progress, start + layer * each, start + (layer + share) * each)

    def _set_apart(self, subject: Tensor) -> int | None:
        """Give the subject a layer of its own; its number, None if the mask is empty."""
        self.subject = subject.to(self.nearness).clamp(0.0, 1.0)
        own = self.subject >= 0.5
        if not own.any():
            return None
        median = self.nearness[own].median()
        number = int(self.label[own & (self.nearness <= median)].min())
        # what shares the subject's slab but not its mask lies behind it
        self.label = torch.where(self.label >= number, self.label + 1, self.label)
        self.label = torch.where(own, torch.full_like(self.label, number), self.label)
        return number

    def _matte(self, layer: int, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Coverage among what is not nearer, and where that is not just 0 or 1.

        encoded: the picture `(3, H, W)` in sRGB 0..1.
        """
        own, nearer = self.label == layer, self.label < layer
        hard = own.to(self.nearness)
        if layer == self.count - 1:
            return torch.ones_like(hard), torch.zeros_like(own)
        if layer == self.given:
            return torch.where(nearer, hard, self.subject), (self.subject > 0) & (self.subject < 1) & ~nearer
        border = self.edge & dilate(own) & dilate(self.label > layer)
        thin = own & ~dilate(erode(own, 5), 5)
        band = (border | dilate(thin, _TRACE_SIDE)) & (self.label >= layer) & ~dilate(nearer)
        if not band.any():
            return hard, band
        trust = torch.where(band, torch.where(own, _TRUST_NEAR, _TRUST_FAR), 1.0)
        matte = closed_form_matte(encoded, hard, trust, on_progress=self._part(_CUTTING, _MATTING, layer))
        matte = matte.sub_(_SNAP).div_(1.0 - 2.0 * _SNAP).clamp_(0.0, 1.0)
        return torch.where(band, matte, hard), band

    def layers(self, background: Tensor | Background | None) -> list[Layer]:
        """Colours, distances and full coverage of every layer, un-mixed."""
        in_band = torch.zeros_like(self.edge)
        for band in self.bands:
            in_band |= band
        through = torch.ones_like(self.nearness)
        values = torch.cat([self.radiance, inverse_depth(self.depth_m)[None, None]], dim=1)
        radiance, alpha, depth = [], [], []
        for layer in range(self.count):
            own, nearer = self.label == layer, self.label < layer
            share = through * self.mattes[layer]
            through = through.mul_(1.0 - self.mattes[layer])
            pure = _PURE_NEAR if layer == 0 and self.count > 1 else _PURE_FAR
            share = torch.where(in_band, ((share - pure) / (1.0 - pure)).clamp_(0.0, 1.0), 1.0).mul_(own)
            if (share > 0.5).sum() < 20:
                share = own.to(share)
            # a surface that was cut goes on under the nearer layer as the picture itself
            reach = int(self.nearness[own].abs().max().ceil()) + 2 if own.any() else 2
            seam = (
                geodesic_dilation(own & (share > 0.5), self.nearness, nearer & ~self.edge & ~in_band, reach)
                & ~own
            )
            share[seam] = 1.0
            behind = layer == self.count - 1
            fill = background if behind and callable(background) else self._push_pull(layer, 0.7)
            filled = fill(values, share[None, None])
            known = own | seam
            # not by way of 1/d where the depth is known: the gradient of sky would be 0 · inf
            hidden = 1.0 / filled[:, -1].clamp_min(1e-9)
            depth.append(torch.where(known, self.depth_m, hidden))
            plate = background if behind and isinstance(background, Tensor) else None
            colour = filled[:, :-1] if plate is None else plate.to(self.radiance)
            radiance.append(torch.where(known & ~in_band, self.radiance, colour))
            alpha.append(self._coverage(layer, own, nearer, seam))
            # by now it is in `alpha`: a large picture has no room for both
            self.mattes[layer] = filled = colour = hidden = None
        self._recompose(radiance, alpha)
        return [Layer(r, a[None, None], d) for r, a, d in zip(radiance, alpha, depth, strict=True)]

    def _push_pull(self, layer: float, share: float) -> Background:
        return partial(push_pull, on_progress=self._part(_MATTING, _FILLING, layer, share))

    def _coverage(self, layer: int, own: Tensor, nearer: Tensor, seam: Tensor) -> Tensor:
        """Coverage also where nearer layers hide it: continued from the rim, steepened to an edge."""
        if layer == self.count - 1:
            return torch.ones_like(self.nearness)
        if layer == 0:  # nothing is nearer
            return self.mattes[0]
        visible = ((self.label >= layer) & ~(self.edge & dilate(nearer))).to(self.nearness)
        hidden = self._push_pull(layer + 0.7, 0.3)(self.mattes[layer][None, None], visible[None, None])[0, 0]
        hidden = hidden.sub_(0.5).mul_(4.0).add_(0.5).clamp_(0.0, 1.0)
        return torch.where(seam, 1.0, torch.where(nearer, hidden, self.mattes[layer]))

    def _recompose(self, radiance: list[Tensor], alpha: list[Tensor]) -> None:
        """Change colours, and coverage where colours cannot, until the stack is the picture. In place."""
        for layer in range(self.count - 2, -1, -1):
            band = self.bands[layer] & ~dilate(self.label < layer)
            if band.any():
                self._unmix(layer, band, radiance, alpha)
        # colours below black would be needed there: the layer that owns the pixel takes all of it
        for band, *_ in bands_of(len(self.nearness)):
            picture, parts = self.radiance[..., band, :], [colour[..., band, :] for colour in radiance]
            covers = [cover[band] for cover in alpha]
            with torch.no_grad():
                difference = linear_to_srgb(_over(parts, covers)[0]) - linear_to_srgb(picture[0])
                off = difference.abs().amax(0) > _RECOMPOSED
            for layer in range(self.count if off.any() else 0):
                own = self.label[band] == layer
                if layer < self.count - 1:
                    covers[layer][off] = own[off].to(covers[layer])
                radiance[layer][..., band, :] = torch.where(off & own, picture, parts[layer])

    def _unmix(self, layer: int, band: Tensor, radiance: list[Tensor], alpha: list[Tensor]) -> None:
        """The pixels of an edge of a layer, and of what is behind it, so that together they are the picture.

        They are few, so all of it happens on lists `(1, C, N)` of them.
        """
        index = band.flatten().nonzero()[:, 0]
        picture = self.radiance.flatten(2)[..., index]
        # this layer first, then those behind it
        colours = [colour.flatten(2)[..., index] for colour in radiance[layer:]]
        covers = [cover.view(-1)[index] for cover in alpha[layer:]]
        a, own = covers[0], colours[0]
        under = _over(colours[1:], covers[1:])
        # the least change of both colours that gives the pixel
        missing = (picture - a * own - (1.0 - a) * under) / (a * a + (1.0 - a) ** 2)
        own = (own + a * missing).clamp_min(0.0)
        rest = ((picture - a * own) / (1.0 - a).clamp_min(1e-3)).clamp_min(0.0)
        shows = torch.full_like(index, len(covers) - 1)
        for behind in range(len(covers) - 2, 0, -1):
            shows = torch.where(covers[behind] > 0.5, behind, shows)
        for behind in range(1, len(covers)):
            here = (a < 0.999) & (shows == behind)
            colours[behind] = torch.where(here, rest, colours[behind])
        # where that would have needed light below black, the nearer colour gives way
        under = _over(colours[1:], covers[1:])
        exact = ((picture - (1.0 - a) * under) / a.clamp_min(0.05)).clamp_min(0.0)
        colours[0] = torch.where(a > 0.05, exact, own)
        for plane, colour in zip(radiance[layer:], colours, strict=True):
            plane.flatten(2).index_copy_(2, index, colour)


def _over(radiance: list[Tensor], alpha: list[Tensor]) -> Tensor:
    """The stack without a lens, `(B, C, H, W)`; the farthest layer is opaque."""
    result = radiance[-1]
    for colour, cover in zip(reversed(radiance[:-1]), reversed(alpha[:-1]), strict=True):
        result = cover * colour + (1.0 - cover) * result
    return result
