"""Runs in the host's Python: what the lens nodes find again, and hold, along a batch.

`python inside_batch.py REPO` answers with one line of JSON: for every check what it found, or its traceback.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import sys
import traceback
from contextlib import contextmanager

(REPO,) = sys.argv[1:]
sys.path.insert(0, ".")
sys.argv = ["main.py", "--cpu"]

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

from pack.lens_models import (  # noqa: E402
    Camera,
    Focus,
    taf,
)
from pack.lens_models.depth import DepthMap  # noqa: E402
from pack.lens_models.layers import layered_lens  # noqa: E402
from pack.nodes.camera.batch_sweep import BatchSweepNode  # noqa: E402
from pack.nodes.lens import lenses, render  # noqa: E402

HEIGHT, WIDTH = 40, 64
NEAR_M, FAR_M = 1.5, 6.0
EVERY = "every combination"
#: Bytes that picture, CoC and overlay have per item, all float32.
FILM_BYTES = HEIGHT * WIDTH * 3 * 3 * 4


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed))


def depth(shift: int = 0) -> DepthMap:
    metres = torch.full((1, HEIGHT, WIDTH), FAR_M)
    metres[:, 8:30, 16 + shift : 40 + shift] = NEAR_M
    return DepthMap(metres, torch.ones_like(metres, dtype=torch.bool))


def stacked(*maps: DepthMap) -> DepthMap:
    return DepthMap(torch.cat([m.metres for m in maps]), torch.cat([m.valid for m in maps]))


def apertures(*numbers: float) -> Camera:
    return Camera(torch.tensor(numbers, dtype=torch.float64), 85.0)


def distances(*metres: float) -> Focus:
    return Focus(torch.tensor(metres, dtype=torch.float64))


def shot(node, image, depth_map, camera, focus, **extras):
    return node.execute(image, depth_map, focus, camera, 32, render.NEAREST, **extras).args


@contextmanager
def watched(module, *names: str):
    """[bytes of all tensors, calls by name] while the lens works: the most at the beginning of any call."""
    seen, real = {"bytes": 0, **dict.fromkeys(names, 0)}, {name: getattr(module, name) for name in names}

    def noting(name):
        def call(*args, **settings):
            seen[name] += 1
            seen["bytes"] = max(seen["bytes"], live_bytes())
            return real[name](*args, **settings)

        return call

    for name in names:
        setattr(module, name, noting(name))
    try:
        yield seen
    finally:
        for name in names:
            setattr(module, name, real[name])


def live_bytes() -> int:
    gc.collect()
    tensors = (found for found in gc.get_objects() if type(found) is torch.Tensor)
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


LAYERED = (layered_lens, "split_layers", "composite")


def product():
    """Every combination in one run against a run per picture and distance, which shares layers of itself."""
    image, maps = torch.cat([picture(0), picture(1)]), stacked(depth(), depth(4))
    camera, focus = apertures(2.0, 4.0, 8.0), distances(NEAR_M, FAR_M)
    batch = BatchSweepNode.execute(image, maps, camera, focus, EVERY)
    swept_image, swept_depth, swept_camera, swept_focus, labels, count = batch.args
    with watched(*LAYERED) as seen:
        whole = shot(lenses.DrBokehLensNode, swept_image, swept_depth, swept_camera, swept_focus)
    apart = [
        shot(lenses.DrBokehLensNode, picture(i), depth(4 * i), camera, Focus(metres))
        for i in range(2)
        for metres in (NEAR_M, FAR_M)
    ]
    same = [torch.equal(whole[k], torch.cat([part[k] for part in apart])) for k in range(3)]
    first = shot(lenses.DrBokehLensNode, swept_image, swept_depth, swept_camera, swept_focus)[3]
    return {
        "count": count,
        "labels": labels,
        "said": batch.ui["text"],
        "same": same,
        "first layers": torch.equal(first, apart[0][3]),
        "splits": seen["split_layers"],
        "pictures": seen["composite"],
    }


def repeated():
    """How often layers are found when people repeat the photo, the depth or a mask themselves."""
    camera, mask = apertures(2.0, 4.0, 8.0, 16.0), torch.zeros(1, HEIGHT, WIDTH)
    mask[:, 8:30, 16:40] = 1.0
    photos, maps, masks = (t.repeat(4, *[1] * (t.ndim - 1)) for t in (picture(), depth().metres, mask))
    many = DepthMap(maps, maps > 0)
    moved = masks.clone()
    moved[2:, 8:30, 16:20] = 0.0
    cases = {
        "once": (picture(), depth(), camera, Focus(NEAR_M), mask),
        "repeated": (photos, many, camera, Focus(NEAR_M), masks),
        "expanded": (picture().expand(4, -1, -1, -1), many, camera, Focus(NEAR_M), mask),
        "another mask": (photos, depth(), camera, Focus(NEAR_M), moved),
        "there and back": (photos, many, camera, distances(NEAR_M, FAR_M, FAR_M, NEAR_M), masks),
        "other pictures": (torch.cat([picture(i) for i in range(4)]), many, camera, Focus(NEAR_M), masks),
    }
    found, first = {}, None
    for name, (*scene, subject) in cases.items():
        with watched(*LAYERED) as seen:
            shown = shot(lenses.DrBokehLensNode, *scene, subject=subject)[0]
        first = shown if first is None else first
        found[name] = {"splits": seen["split_layers"], "same": torch.equal(shown, first)}
    return found


def memory():
    """Bytes held beside what goes in and comes out, at the fullest moment, by number of items."""
    found = {}
    # so many pixels at once that a short batch is already more than one go
    taf.PIXELS_TOGETHER = 2 * HEIGHT * WIDTH
    for node, names in ((lenses.TAFLensNode, (taf, "_gathered")), (lenses.DrBokehLensNode, LAYERED)):
        shot(node, picture(), depth(), apertures(2.0, 4.0), Focus(NEAR_M))  # what is kept for good is there
        for many in (2, 10):
            camera = apertures(*[2.0 + i / 7 for i in range(many)])
            focus = distances(*[1.0 + i / 3 for i in range(many)])
            image = picture()
            before = live_bytes()
            batch = BatchSweepNode.execute(image, depth(), camera, focus, EVERY).args
            with watched(*names) as seen:
                shot(node, *batch[:4])
            key = f"{node.__name__} {many * many}"
            found[key] = seen["bytes"] - before - many * many * FILM_BYTES
    return found


def out_of_memory():
    """A lens that runs out of memory at the second of three apertures is asked for the other two again."""
    calls = []

    def fake(radiance, metres, focus, camera, **settings):
        calls.append(camera.batch)
        yield radiance
        if len(calls) == 1:
            raise torch.OutOfMemoryError("there is none left")
        yield radiance

    real = mm.get_torch_device, mm.free_memory, mm.get_free_memory, mm.soft_empty_cache
    # a device that is not called cpu, whose tensors are those of the CPU
    mm.get_torch_device = lambda: torch.device("meta")
    mm.free_memory = mm.soft_empty_cache = lambda *_, **__: None
    mm.get_free_memory = lambda *_: 1 << 30
    to = torch.Tensor.to
    torch.Tensor.to = lambda tensor, *a, **k: tensor if a == (torch.device("meta"),) else to(tensor, *a, **k)
    try:
        scene = (picture(), depth(), Focus(NEAR_M), apertures(2.0, 4.0, 8.0))
        _, _, warnings = render.render(fake, *scene, 32, render.NEAREST)
    finally:
        torch.Tensor.to = to
        mm.get_torch_device, mm.free_memory, mm.get_free_memory, mm.soft_empty_cache = real
    return {"calls": calls, "warnings": warnings}


def answer(check):
    try:
        return check()
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    checks = (product, repeated, memory, out_of_memory)
    print(json.dumps({check.__name__: answer(check) for check in checks}))
