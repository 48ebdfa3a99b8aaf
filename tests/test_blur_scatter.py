"""The scatter of the cpu engine against the float64 definition, and what it must keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blur import scene

from lens_models import Camera, Focus, blur, dr_bokeh_lens
from lens_models.blur import numba_scatter, reference, torch_stack
from lens_models.shape import ApertureShape

#: Of the result's maximum, as sources add up where radii differ: every engine's bound (design section 6).
#: float32 sums of a few hundred rows of discs stay ten times below.
EXACT = 1e-5


def spread(image, radii, **settings):
    return blur.scatter(image, radii, engine="cpu", **settings)


@settings(max_examples=25)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 150),
    radius=st.floats(0, 13),
    channels=st.integers(3, 5),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_definition(height, width, radius, channels, batch, seed):
    image, radii = scene(height, width, radius, batch=batch, channels=channels, seed=seed)
    exact = reference.scatter(image, radii)
    fast = spread(image.float(), radii.float())
    assert fast.dtype == torch.float32
    assert (fast.double() - exact).abs().max() <= EXACT * exact.max()


@pytest.mark.parametrize("radius", [40.0, 90.0])
@pytest.mark.parametrize("size", [(61, 147), (147, 61), (170, 1300)])
def test_wide_discs(radius, size):
    """Wider than bands and pictures, rows longer than a run; radii that change along rows: it is turned."""
    image, radii = scene(*size, radius)
    ramp = torch.linspace(0.0, radius, size[1], dtype=torch.float64).expand_as(radii)
    for wanted in (radii, ramp.contiguous()):
        exact = torch_stack.scatter(
            image, wanted
        )  # in float64: 1e-12 of the definition, which would take minutes
        fast = spread(image.float(), wanted.float())
        assert (fast.double() - exact).abs().max() <= EXACT * exact.max()


def test_turned_or_not_it_is_the_same():
    image, radii = scene(90, 140, 12.0, dtype=torch.float32)
    upright = numba_scatter._upright(image, radii, None)
    turned = numba_scatter._upright(image.mT, radii.mT, None).mT
    assert not torch.equal(upright, turned)  # else this compared nothing
    assert (upright - turned).abs().max() <= EXACT * upright.max()


def test_it_is_the_transpose_of_the_gather():
    # away from the border, where a gather replicates and a scatter loses light
    image, radii = scene(80, 90, 9.0, dtype=torch.float32)
    x, y = torch.zeros_like(image), torch.zeros_like(image)
    x[..., 16:-16, 16:-16] = image[..., 16:-16, 16:-16]
    y[..., 16:-16, 16:-16] = torch.rand(1, 3, 48, 58, generator=torch.Generator().manual_seed(4))
    forward = (blur.gather(x, radii, engine="cpu").double() * y.double()).sum()
    backward = (x.double() * spread(y, radii).double()).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-5)


def test_energy_stays_inside_the_border_and_is_lost_beyond():
    image, radii = torch.zeros(1, 4, 90, 100), torch.full((1, 90, 100), 13.3)
    image[..., 30:60, 30:70] = torch.rand(1, 4, 30, 40)
    assert spread(image, radii).double().sum().item() == pytest.approx(image.double().sum().item(), rel=1e-6)
    image = torch.ones_like(image)
    made = spread(image, radii).double()
    # of the first row just more than half arrives on average: its discs' halves, and their middle
    assert 0.5 < made[..., 0, 20:-20].mean() < 0.56
    assert made[..., 20:-20, 20:-20].sub(1.0).abs().max() <= 1e-6


def test_zero_radius_is_bit_equal():
    image, radii = scene(40, 90, 0.0, dtype=torch.float32)
    image[..., 3:9, :] *= -1.0
    for zero in (radii, -radii):
        assert torch.equal(spread(image, zero), image)
    # beside blurred pixels too, where their light does not reach
    radii[:, 20:] = 4.0
    assert torch.equal(spread(image, radii)[..., :15, :], image[..., :15, :])
    assert not torch.equal(spread(image, radii), image)


def test_a_highlight_leaves_dark_neighbours_exact():
    image = torch.rand(1, 3, 64, 200, generator=torch.Generator().manual_seed(2)) * 1e-3
    radii = torch.full((1, 64, 200), 8.0)
    dark = spread(image, radii)
    image[..., 32, 100] = 30_000.0
    lit = spread(image, radii)
    kernel_px = 10
    far = torch.ones(64, 200, dtype=torch.bool)
    far[32 - kernel_px : 33 + kernel_px, 100 - kernel_px : 101 + kernel_px] = False
    assert lit[..., 32, 100].min() > 100.0
    # a float32 running sum would be off by 30 000 × 6e-8 = 2e-3, twice what is there
    assert (lit - dark)[..., far].abs().max() <= 1e-6 * dark.max()


def test_threads_and_runs_agree_to_the_bit():
    image, radii = scene(150, 300, 9.0, batch=2, channels=4, dtype=torch.float32)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            made.append(spread(image, radii))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[1], made[2])


def test_steps_do_not_change_a_bit(monkeypatch):
    image, radii = scene(150, 300, 9.0, dtype=torch.float32)
    whole = spread(image, radii)
    monkeypatch.setattr(numba_scatter, "_ADDS_PER_STEP", 1e5)
    steps = []
    assert torch.equal(spread(image, radii, on_progress=lambda *step: steps.append(step)), whole)
    assert len(steps) > 20
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_a_step_is_short_at_4096():
    """By its count of adds, of which a slow thread does 2e9 per second: a press of cancel is heard."""
    height, reach = 4096, 130
    work = torch.full((height,), 4096 * 4 * reach * 5.0 * 2, dtype=torch.float64).numpy()
    steps = numba_scatter._steps(work, 2 * reach)
    assert sum(share for *_, share in steps) == pytest.approx(1.0)
    assert max(share for *_, share in steps) * work.sum() <= numba_scatter._ADDS_PER_STEP <= 1e9
    done = torch.zeros(height, dtype=torch.long)
    for odd, begin, end, _ in steps:
        for top in range(2 * reach * odd, height, 4 * reach):
            done[top + begin : min(top + end, height)] += 1
    assert (done == 1).all()


@pytest.mark.parametrize("engine", ["auto", "reference", "stack", "cpu"])
def test_progress_and_interrupt(engine):
    image, radii = scene(40, 50, 2.0, batch=2, dtype=torch.float32)
    steps = []
    blur.scatter(image, radii, engine=engine, on_progress=lambda done, total: steps.append((done, total)))
    assert len(steps) > 1
    assert steps[-1][0] == steps[-1][1]

    class Interrupted(Exception):
        pass

    def stop(done, total):
        raise Interrupted

    with pytest.raises(Interrupted):
        blur.scatter(image, radii, engine=engine, on_progress=stop)


def test_one_picture_serves_all_radii():
    image, radii = scene(30, 40, 5.0, batch=2, dtype=torch.float32)
    exact = reference.scatter(image[:1].expand(2, -1, -1, -1).double(), radii.double())
    for engine in ("reference", "stack", "cpu"):
        made = blur.scatter(image[:1], radii, engine=engine)
        assert (made.double() - exact).abs().max() <= EXACT * exact.max()


def test_choice(monkeypatch):
    image, radii = scene(8, 8, 2.0, dtype=torch.float32)

    def choice(image, radii, shape=None):
        return blur.choose(image, radii, shape, "scatter")

    assert choice(image, radii) == "cpu"
    assert choice(image, -radii, ApertureShape()) == "cpu"
    assert choice(image, radii, ApertureShape("polygon", blades=6)) == "stack"
    assert choice(image.clone().requires_grad_(), radii) == "stack"
    assert choice(image.double(), radii.double()) == "stack"
    # wide discs of one radius are the stack's, those of a ramp are not, whichever way it goes
    wide = torch.full((1, 300, 300), 150.0)
    ramp = torch.linspace(0.0, 150.0, 300).expand(1, 300, 300)
    assert choice(image, wide) == "stack"
    assert choice(image, ramp) == choice(image, ramp.mT) == "cpu"
    monkeypatch.setattr(blur, "_numba_engine", lambda: None)
    assert choice(image, radii) == "stack"
    with pytest.raises(ValueError, match="needs numba"):
        spread(image, radii)


def test_auto_runs_what_was_chosen(monkeypatch):
    image, radii = scene(20, 30, 4.0, dtype=torch.float32)
    assert torch.equal(blur.scatter(image, radii), spread(image, radii))
    monkeypatch.setattr(numba_scatter, "_ALWAYS_PX", 0.0)
    assert torch.equal(blur.scatter(image, radii), blur.scatter(image, radii, engine="stack"))


def test_refusals():
    image, radii = scene(8, 8, 2.0)
    with pytest.raises(ValueError, match='Unknown blur engine "gaussian"'):
        blur.scatter(image, radii, engine="gaussian")
    with pytest.raises(ValueError, match="float32"):
        spread(image, radii)
    with pytest.raises(ValueError, match="no gradients"):
        spread(image.float().requires_grad_(), radii.float())
    with pytest.raises(ValueError, match="knows only the disc"):
        spread(image.float(), radii.float(), shape=ApertureShape("polygon", blades=6))


def test_dr_bokeh_is_the_same_on_every_engine():
    random = torch.Generator().manual_seed(7)
    picture, depth = torch.rand(1, 4, 72, 96, generator=random), torch.full((1, 72, 96), 8.0)
    depth[:, 36:] = torch.linspace(8.0, 1.5, 36)[:, None]
    depth[:, 16:50, 30:60] = 1.5
    asked = (picture, depth, Focus(3.0), Camera(torch.tensor([1.4, 4.0]), 50.0))
    made = {
        e: dr_bokeh_lens(*asked, max_radius_px=9.0, engine=e) for e in ("stack", "cpu", "reference", "auto")
    }
    for other in ("cpu", "reference", "auto"):
        assert (made[other] - made["stack"]).abs().max() <= EXACT * made["stack"].max()
    assert torch.equal(made["auto"], made["cpu"])
    assert not torch.equal(made["stack"], made["cpu"])
    with pytest.raises(ValueError, match='Unknown blur engine "gaussian"'):
        dr_bokeh_lens(*asked, engine="gaussian")
