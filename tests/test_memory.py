"""Bands of rows: the same picture as without them, also after memory ran out in the middle."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models import Camera, Focus, dr_bokeh_lens, memory, taf_lens
from lens_models.blur import torch_stack
from lens_models.memory import BAND_ROWS, OutOfMemory, in_bands, rows_that_fit
from lens_models.shape import ApertureShape

HEIGHT, WIDTH = 4 * BAND_ROWS + 37, 61
FOCUS, CAMERA = Focus(2.0), Camera(1.4, 85.0, 36.0)
TIGHT = 1  # byte: the narrowest bands there are
#: Of the picture's maximum: the order of the sums differs in the level stack, numba's is the same to the bit.
SEAMLESS = 1e-6


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    depth = torch.linspace(1.0, 8.0, HEIGHT)[:, None].expand(HEIGHT, WIDTH).clone()
    depth[200:330, 20:45] = 0.8
    return torch.rand(1, 4, HEIGHT, WIDTH), depth[None]


@pytest.mark.parametrize("engine", ["cpu", "stack", "reference"])
def test_taf_leaves_no_seam(scene, engine):
    kept = {"engine": engine, "max_radius_px": 6.0 if engine == "reference" else None}
    sweep = Camera(torch.tensor([1.4, 4.0]), 85.0, 36.0)
    whole = taf_lens(*scene, FOCUS, sweep, **kept)
    banded = taf_lens(*scene, FOCUS, sweep, **kept, memory_bytes=TIGHT)
    assert (whole - banded).abs().max() <= (SEAMLESS if engine == "stack" else 0.0)


def test_a_large_picture_is_never_one_piece(scene, monkeypatch):
    """However much memory there is: what is in one piece cannot be interrupted."""
    whole = [lens(*scene, FOCUS, CAMERA) for lens in (taf_lens, dr_bokeh_lens)]
    heard: list[int] = []
    of = memory.rows_that_fit
    monkeypatch.setattr(memory, "BAND_PIXELS", 2 * BAND_ROWS * WIDTH)
    monkeypatch.setattr(memory, "rows_that_fit", lambda *given: heard.append(of(*given)) or heard[-1])
    for lens, picture in zip((taf_lens, dr_bokeh_lens), whole, strict=True):
        assert (lens(*scene, FOCUS, CAMERA) - picture).abs().max() <= SEAMLESS * 2.0
    assert set(heard) == {2 * BAND_ROWS}


def test_shapes_leave_no_seam(scene):
    for shape in (ApertureShape("polygon", blades=6), ApertureShape("polygon", blades=5, cats_eye=0.5)):
        whole, banded = (
            taf_lens(*scene, FOCUS, CAMERA, shape=shape, max_radius_px=9.0, memory_bytes=held)
            for held in (None, TIGHT)
        )
        assert (whole - banded).abs().max() <= SEAMLESS


def test_dr_bokeh_leaves_no_seam(scene):
    whole, banded = (dr_bokeh_lens(*scene, FOCUS, CAMERA, memory_bytes=held) for held in (None, TIGHT))
    assert (whole - banded).abs().max() <= SEAMLESS * 2.0


def test_a_leaning_plane_leaves_no_seam(scene):
    leaning = Focus(2.0, 1.0, 40.0, -20.0)
    for lens in (taf_lens, dr_bokeh_lens):
        whole, banded = (lens(*scene, leaning, CAMERA, memory_bytes=held) for held in (None, TIGHT))
        assert (whole - banded).abs().max() <= SEAMLESS * 2.0


def test_gradients_need_the_whole_picture_and_get_it(scene):
    radiance, depth = scene[0].clone().requires_grad_(), scene[1]
    taf_lens(radiance, depth, FOCUS, CAMERA, memory_bytes=TIGHT).sum().backward()
    assert radiance.grad.isfinite().all()


@given(
    height=st.integers(1, 2000),
    halo=st.integers(0, 5).map(lambda n: n * BAND_ROWS),
    per_row=st.integers(1, 10**6),
    memory_bytes=st.none() | st.integers(0, 10**9),
    at_most=st.none() | st.integers(0, 3000),
)
def test_bands_hold_to_their_budget(height, halo, per_row, memory_bytes, at_most):
    rows = rows_that_fit(height, halo, per_row, memory_bytes, at_most)
    assert 1 <= rows <= height
    assert at_most is None or rows <= max(at_most, BAND_ROWS)
    assert rows == height or rows % BAND_ROWS == 0
    if memory_bytes is not None and BAND_ROWS < rows < height:
        assert (rows + 2 * halo) * per_row <= memory_bytes


@settings(max_examples=30)
@given(height=st.integers(1, 700), reach=st.integers(0, 200), rows=st.integers(1, 5))
def test_every_row_is_made_once_with_its_halo(height, reach, rows):
    made = torch.zeros(height)
    halo = -(-reach // BAND_ROWS) * BAND_ROWS

    def work(band: slice, seen: slice) -> torch.Tensor:
        assert seen.start <= max(0, band.start - reach)
        assert seen.stop >= min(height, band.stop + reach)
        made[band] += 1
        return torch.arange(band.start, band.stop).float()[None, None, :, None]

    out = in_bands(work, height, reach, 1, (rows * BAND_ROWS) + 2 * halo, 1)
    assert out.flatten().tolist() == list(range(height))
    assert made.eq(1).all()


def test_running_out_of_memory_is_gone_on_from(scene, monkeypatch, caplog):
    """Memory that is too small for whole pictures, and says so as torch does: in words of a RuntimeError."""
    whole = taf_lens(*scene, FOCUS, CAMERA, engine="stack")
    collect, tried = torch_stack._collect, []

    def small(padded, *args, **settings):
        tried.append(padded.shape[-2])
        if padded.shape[-2] > 4 * BAND_ROWS:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return collect(padded, *args, **settings)

    monkeypatch.setattr(torch_stack, "_collect", small)
    with caplog.at_level(logging.WARNING):
        found = taf_lens(*scene, FOCUS, CAMERA, engine="stack", max_radius_px=8.0)
    assert max(tried) > 4 * BAND_ROWS
    assert any("out of memory in bands of" in record.message for record in caplog.records)
    monkeypatch.undo()
    whole = taf_lens(*scene, FOCUS, CAMERA, engine="stack", max_radius_px=8.0)
    assert (whole - found).abs().max() <= SEAMLESS


def test_no_memory_at_all_is_a_sentence(scene, monkeypatch):
    def none(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch_stack, "_collect", none)
    with pytest.raises(OutOfMemory, match=r"128 rows, the narrowest there are.*use a smaller picture"):
        taf_lens(*scene, FOCUS, CAMERA, engine="stack")


def test_other_errors_pass(scene, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(torch_stack, "_collect", broken)
    with pytest.raises(RuntimeError, match="something else"):
        taf_lens(*scene, FOCUS, CAMERA, engine="stack")
    assert not memory.is_out_of_memory(ValueError("out of memory"))
