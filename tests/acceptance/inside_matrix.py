"""Runs in the host's Python: both lens nodes over batches, sizes, transparency, depth, dtypes on one device.

`python inside_matrix.py REPO DEVICE` (cpu or cuda) answers with one line of JSON: {"device": what ComfyUI
chose, "cases": {case: sentence about what is wrong, "" for nothing}, "refused": {case: the node's words}}.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import sys
import traceback

REPO, DEVICE = sys.argv[1:]
sys.path.insert(0, ".")
sys.argv = ["main.py", *["--cpu"] * (DEVICE == "cpu")]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management as mm  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location(
    "pack", f"{REPO}/__init__.py", submodule_search_locations=[REPO]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

from pack.lens_models import Camera, Focus  # noqa: E402
from pack.lens_models.depth import DepthMap  # noqa: E402
from pack.nodes.lens.lenses import DrBokehLensNode, TAFLensNode  # noqa: E402

LENSES = {"TAF Lens": TAFLensNode, "Dr.Bokeh Lens": DrBokehLensNode}
#: pictures, depths, cameras
BATCHES = {
    "1": (1, 1, 1),
    "4": (4, 4, 4),
    "4 x 1 depth": (4, 1, 1),
    "1 x 4 depths": (1, 4, 1),
    "1 x 4 cameras": (1, 1, 4),
}
#: height, width
SIZES = {
    "1x1": (1, 1),
    "1x9": (1, 9),
    "3x7": (3, 7),
    "odd": (33, 47),
    "portrait": (96, 54),
    "landscape": (40, 64),
}
ALPHAS = ("RGB", "RGBA", "RGBA, black where clear")
DEPTHS = ("same", "half", "other aspect")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}
AXES = (BATCHES, SIZES, ALPHAS, DEPTHS, DTYPES)
MISMATCHES = {
    "3 pictures, 2 depths": (3, 2, 1, 1),
    "3 pictures, 2 cameras": (3, 1, 2, 1),
    "2 depths, 3 focus settings": (1, 2, 1, 3),
    "4 pictures, 8 cameras": (4, 1, 8, 1),
}
#: A picture alone and in a batch differ by the rounding of float32, which sRGB's steep dark end enlarges.
ROUNDING = 5e-5


def every_triple() -> list[tuple[str, ...]]:
    """Cases in which every three choices of three axes meet; all of them together would take minutes."""
    cases = list(itertools.product(*AXES))
    triples = [set(itertools.combinations(enumerate(case), 3)) for case in cases]
    missing, chosen = set().union(*triples), []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(triples[i] & missing))
        chosen.append(cases[best])
        missing -= triples[best]
    return chosen


def scene(batch, size, alpha, depth):
    """Picture `(B, H, W, C)` float32, DEPTH and Camera: noise, and a near disc before a far wall and sky."""
    pictures, depths, cameras = batch
    height, width = size
    random = torch.Generator().manual_seed(1)
    image = torch.rand(pictures, height, width, 3, generator=random)
    if alpha != "RGB":
        matte = torch.rand(pictures, height, width, 1, generator=random)
        matte[:, : height // 2] = 0.0
        image = torch.cat([image * (matte > 0) if "black" in alpha else image, matte], dim=-1)
    rows, columns = {
        "same": size,
        "half": (max(1, height // 2), max(1, width // 2)),
        "other aspect": (max(1, width // 2), max(1, height)),
    }[depth]
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    # each half as far again: depths that are alike would be a clip, whose layers are steadied
    metres = torch.stack([torch.where(x**2 + y**2 < 0.4, 1.5, 5.0 + y) * 1.5**i for i in range(depths)])
    metres[:, : rows // 4] = torch.inf
    depth_map = DepthMap(metres, torch.ones_like(metres, dtype=torch.bool))
    stops = torch.tensor([0.5, 1.0, 2.0, 4.0, 5.6, 8.0, 11.0, 16.0])[:cameras]
    return image, depth_map, Camera(stops if cameras > 1 else 0.5, 85.0)


def run(lens, image, depth, camera, focus=None):
    result = lens.execute(image, depth, focus or Focus(2.0), camera, 64, "nearest (keeps edges)")
    return result.args[:3]


def one(batch, index):
    return batch[index : index + 1] if len(batch) > 1 else batch


def visible(picture):
    """Colour times alpha: a pixel whose alpha is itself rounding, 1e-5 and less, may have any colour."""
    if picture.shape[-1] == 3:
        return picture
    return torch.cat([picture[..., :3] * picture[..., 3:], picture[..., 3:]], dim=-1)


def what_is_wrong(lens, batch, size, alpha, depth, dtype) -> str:
    """Shapes, dtypes and NaN of the outputs, and the last of a batch against the same one rendered alone."""
    image, depth_map, camera = scene(BATCHES[batch], SIZES[size], alpha, depth)
    image = image.to(DTYPES[dtype])
    outputs = run(lens, image, depth_map, camera)
    count, (height, width) = max(BATCHES[batch]), SIZES[size]
    channels = (image.shape[-1], 3, 3)
    for name, out, deep in zip(("image", "coc", "overlay"), outputs, channels, strict=True):
        if tuple(out.shape) != (count, height, width, deep):
            return f"{name} has shape {tuple(out.shape)}, not {(count, height, width, deep)}"
        if out.dtype != torch.float32:
            return f"{name} is {out.dtype}"
        if not torch.isfinite(out).all():
            return f"{name} has {(~torch.isfinite(out)).sum()} values that are no number"
        if name != "coc" and not (out.min() >= 0 and visible(out).max() <= 1 + ROUNDING):
            return f"{name} goes from {out.min():g} to {visible(out).max():g}"
    if not outputs[1].abs().max() > 0:
        return "nothing was out of focus"
    last = count - 1
    alone = DepthMap(one(depth_map.metres, last), one(depth_map.valid, last))
    sharp = one(image, last).float()
    picture, coc, _ = run(lens, sharp, alone, camera.part(last, count) if camera.batch > 1 else camera)
    for name, out, expected in (("image", outputs[0], picture), ("coc", outputs[1], coc)):
        # a sweep's layers are cut for its widest stop: they are others than those of a stop alone
        if name == "image" and batch == "1 x 4 cameras" and lens is DrBokehLensNode:
            continue
        off = (visible(out[last:]) - visible(expected)).abs().max().item()
        if off > ROUNDING:
            return f"the last {name} of the batch is {off:g} off the same one alone in float32"
    return ""


def failure(check, *arguments) -> str:
    try:
        return check(*arguments)
    except Exception:
        return traceback.format_exc()


def refused(lens, pictures, depths, cameras, focuses) -> str:
    image, depth_map, camera = scene((pictures, depths, cameras), (8, 12), "RGB", "same")
    focus = Focus(torch.linspace(1.0, 3.0, focuses) if focuses > 1 else 2.0)
    try:
        run(lens, image, depth_map, camera, focus)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def large(lens) -> str:
    """One picture of 2048 x 1152 with depth of half its size."""
    image, depth_map, camera = scene((1, 1, 1), (1152, 2048), "RGB", "half")
    outputs = run(lens, image, depth_map, camera)
    wrong = [o for o in outputs if tuple(o.shape) != (1, 1152, 2048, 3) or not torch.isfinite(o).all()]
    return f"{len(wrong)} of 3 outputs are wrong" if wrong else ""


if __name__ == "__main__":
    logging.getLogger("fine_defocus").setLevel(logging.ERROR)  # odd depth is warned about in every case
    cases, refusals = {}, {}
    for name, lens in LENSES.items():
        for case in every_triple():
            cases[", ".join((name, *case))] = failure(what_is_wrong, lens, *case)
        cases[f"{name}, 2048 x 1152"] = failure(large, lens)
        for case, batch in MISMATCHES.items():
            refusals[f"{name}, {case}"] = refused(lens, *batch)
    print(json.dumps({"device": mm.get_torch_device().type, "cases": cases, "refused": refusals}))
