"""The made-up sets: sharp and blurred where they shall be, and packed as the source reads them."""

from __future__ import annotations

import pytest
import torch

from tests.training.tiny_run import config
from training.data.packed import PackedSet, verify
from training.data.toy_sets import F_NUMBERS, FAR_M, NEAR_M, photograph, scene, write
from training.networks.build import build


def test_the_wall_blurs_and_the_disc_stays():
    # 50 mm at f/2 focused at 1.5 m blurs 6 m by 0.65 mm of the sensor's 36: 4.6 of 256 px
    sharp, depth, caption = scene(3, 256)
    deep, _ = photograph(3, 256, "deep")
    shallow, said = photograph(3, 256, "shallow")
    assert said == caption
    assert torch.equal(deep, sharp)
    assert set(depth.unique().tolist()) == {NEAR_M, FAR_M}
    near = (depth == NEAR_M).expand(3, -1, -1)[None]
    # the wall's blur reaches 2.3 px into the disc
    inner = -torch.nn.functional.max_pool2d(-near.float(), 9, 1, 4) > 0
    changed = (shallow - sharp).abs()
    assert changed[~near].mean() > 10 * changed[inner].mean()
    assert changed[~near].mean() > 0.01


def test_packed_sets(tmp_path):
    settings = config()
    networks = build(settings)
    paths = write(tmp_path, networks.vae, settings.size_px, 3)
    assert [path.name for path in paths] == ["deep", "shallow"]
    captions = []
    for name, path in zip(("deep", "shallow"), paths, strict=True):
        assert not verify(path).problems
        packed = PackedSet(path)
        assert len(packed) == 3
        assert packed[0].f_number == F_NUMBERS[name]
        assert packed[0].mean.shape == (4, settings.latent_side, settings.latent_side)
        assert packed.image(0).shape[-1] == settings.size_px
        captions.append([sample.caption for sample in (packed[i] for i in range(3))])
        number = 0 if name == "deep" else 3
        picture, _ = photograph(number, settings.size_px, name)
        with torch.no_grad():
            found = networks.vae.encode(2 * picture - 1).latent_dist.mean[0]
        # kept as float16
        assert torch.allclose(packed[0].mean.float(), found, rtol=1e-3, atol=1e-4)
        packed.close()
    with pytest.raises(FileExistsError):
        write(tmp_path, networks.vae, settings.size_px, 3)
