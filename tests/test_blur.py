"""Every engine against the float64 definition, and the properties the blur must keep."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models import blur, disc
from lens_models.blur import reference, torch_stack

ENGINES = ["stack", "cpu"]
SHAPES = [(1, 1), (3, 7), (7, 3), (33, 70), (61, 147)]


def scene(height, width, radius, *, batch=1, channels=3, seed=0, dtype=torch.float64):
    """A random picture with a few lights, and radii with flat parts, zero parts, noise and an edge."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, channels, height, width, generator=random, dtype=torch.float64)
    image[torch.rand(image.shape, generator=random) > 0.995] = 8.0
    radii = radius * torch.rand(batch, height, width, generator=random, dtype=torch.float64)
    radii[:, : height // 4] = 0.0
    radii[:, height // 4 : height // 2] = radius * 0.37
    radii[:, :, width // 2 :] = radius
    return image.to(dtype), radii.to(dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 2.6, 9.0, 24.0])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_engine_is_the_definition(engine, radius, height, width):
    image, radii = scene(height, width, radius, batch=2, channels=4)
    exact = blur.gather(image, radii, engine="reference")
    fast = blur.gather(image.float(), radii.float(), engine=engine)
    assert fast.dtype == torch.float32
    error = (fast.double() - exact).abs()
    assert error.max() <= 1e-5 * image.max()  # design section 6
    assert error.mean() <= 1e-6 * image.max()


def test_stack_in_float64_is_the_definition_to_rounding():
    image, radii = scene(61, 147, 13.0)
    exact = blur.gather(image, radii, engine="reference")
    torch.testing.assert_close(blur.gather(image, radii, engine="stack"), exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_leave_no_seam(engine):
    # wider than one tile and one band of either engine, radii that differ from tile to tile
    image, radii = scene(150, 300, 6.0, channels=3)
    radii = radii * torch.linspace(0, 1, 300, dtype=torch.float64)
    exact = blur.gather(image, radii, engine="reference")
    fast = blur.gather(image.float(), radii.float(), engine=engine)
    assert (fast.double() - exact).abs().max() <= 1e-5 * image.max()


@settings(max_examples=25)
@given(
    st.integers(1, 24), st.integers(1, 24), st.floats(0, 12), st.sampled_from(ENGINES), st.integers(0, 2**31)
)
def test_any_size_and_radius(height, width, radius, engine, seed):
    image, radii = scene(height, width, radius, seed=seed)
    exact = blur.gather(image, radii, engine="reference")
    fast = blur.gather(image.float(), radii.float(), engine=engine)
    assert (fast.double() - exact).abs().max() <= 1e-5 * 8.0


@pytest.mark.parametrize("engine", ["reference", *ENGINES])
class TestProperties:
    def test_zero_radius_is_bit_equal(self, engine):
        image, radii = scene(40, 90, 11.0, dtype=torch.float32)
        sharp = radii == 0
        assert sharp.any()
        assert (~sharp).any()
        out = blur.gather(image, radii, engine=engine)
        assert torch.equal(out.movedim(1, -1)[sharp], image.movedim(1, -1)[sharp])

    def test_constant_is_kept_to_the_border(self, engine):
        # the definition sums 900 taps one by one: float64, or its own rounding would be measured
        _, radii = scene(40, 90, 15.0, dtype=torch.float64 if engine == "reference" else torch.float32)
        out = blur.gather(torch.full((1, 3, 40, 90), 0.7, dtype=radii.dtype), radii, engine=engine)
        assert (out - 0.7).abs().max() <= 1e-6  # a few float32 roundings

    def test_energy_of_a_spot(self, engine):
        image = torch.zeros(1, 3, 65, 65)
        image[..., 32, 32] = 5.0
        out = blur.gather(image, torch.full((1, 65, 65), 12.3), engine=engine)
        assert out.double().sum((2, 3)) == pytest.approx(torch.full((1, 3), 5.0).double(), rel=1e-5)
        axis = torch.arange(65, dtype=torch.float64) - 32
        variance = (out[0, 0].double() * axis**2).sum() / out[0, 0].double().sum()
        assert variance.item() == pytest.approx(12.3**2 / 4, rel=1e-4)  # float32 tails × 12²
        kernel = disc.disc_kernel(12.3)
        inset = 32 - kernel.shape[0] // 2
        window = out[0, 0, inset : 65 - inset, inset : 65 - inset].double()
        assert (window - 5.0 * torch.from_numpy(kernel)).abs().max() <= 1e-5 * 5.0

    def test_adjoint(self, engine):
        # <G x, y> = <x, Gᵀ y>: Gᵀ is the gradient of the stack, G each engine's own forward
        image, radii = scene(37, 53, 7.0, dtype=torch.float32)
        x = image.clone().requires_grad_()
        y = torch.rand(image.shape, generator=torch.Generator().manual_seed(3))
        (back,) = torch.autograd.grad(blur.gather(x, radii, engine="stack"), x, y)
        forward = (blur.gather(image, radii, engine=engine).double() * y.double()).sum()
        backward = (image.double() * back.double()).sum()
        assert forward.item() == pytest.approx(backward.item(), rel=1e-5)


@pytest.mark.parametrize("engine", [reference, torch_stack])
@pytest.mark.parametrize("operator", ["gather", "scatter"])
def test_gradcheck(engine, operator):
    random = torch.Generator().manual_seed(1)
    image = torch.rand(2, 2, 7, 8, generator=random, dtype=torch.float64, requires_grad=True)
    radii = (5 * torch.rand(2, 7, 8, generator=random, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(getattr(engine, operator), (image, radii))


@pytest.mark.parametrize("radius", [0.0, 0.6, 9.0])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_scatter_is_the_definition(radius, height, width):
    image, radii = scene(height, width, radius, batch=2, channels=4)
    exact = reference.scatter(image, radii)
    torch.testing.assert_close(torch_stack.scatter(image, radii), exact, rtol=0, atol=1e-12)
    fast = torch_stack.scatter(image.float(), radii.float())
    # sources add up where radii differ, so the maximum is that of the result
    assert (fast.double() - exact).abs().max() <= 1e-5 * exact.max()


def test_scatter_is_the_transpose_of_a_gather_in_the_dark():
    # away from the border, where a gather replicates and a scatter loses light
    image, radii = scene(60, 70, 5.0)
    inner = torch.zeros_like(image)
    inner[..., 12:-12, 12:-12] = image[..., 12:-12, 12:-12]
    y = torch.zeros_like(image)
    y[..., 12:-12, 12:-12] = torch.rand(1, 3, 36, 46, dtype=torch.float64)
    forward = (torch_stack.gather(inner, radii) * y).sum()
    assert forward.item() == pytest.approx((inner * torch_stack.scatter(y, radii)).sum().item(), rel=1e-12)


def test_gradients_of_stack_and_definition_agree():
    image, radii = scene(45, 66, 10.0)
    weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for engine, dtype in (("reference", torch.float64), ("stack", torch.float32)):
        x, r = (v.to(dtype).detach().clone().requires_grad_() for v in (image, radii))
        (blur.gather(x, r, engine=engine) * weight.to(dtype)).sum().backward()
        results.append((x.grad.double(), r.grad.double()))
    (exact_x, exact_r), (fast_x, fast_r) = results
    assert (exact_x - fast_x).abs().max() <= 1e-5 * exact_x.abs().max()
    # a radius that rounding puts on the other side of a level takes that side's slope: compare off levels
    off = (disc.levels_for(10.0).mix(radii)[1] - 0.5).abs() < 0.499
    assert (exact_r - fast_r)[off].abs().max() <= 1e-4 * exact_r.abs().max()


def test_radius_gradient_lives_below_a_pixel():
    image, _ = scene(20, 20, 1.0)
    for radius in (0.1, 0.4, 0.9):
        r = torch.full((1, 20, 20), radius, dtype=torch.float64, requires_grad=True)
        blur.gather(image, r, engine="stack").square().sum().backward()
        assert (r.grad.abs() > 0).double().mean() > 0.9


def test_choice():
    image, radii = scene(8, 8, 2.0, dtype=torch.float32)
    assert blur.choose(image, radii) == "cpu"
    assert blur.choose(image.clone().requires_grad_(), radii) == "stack"
    assert blur.choose(image, radii.clone().requires_grad_()) == "stack"
    assert blur.choose(image.double(), radii.double()) == "stack"
    assert blur.choose(image.to("meta"), radii.to("meta")) == "stack"


def test_without_numba_the_stack_runs(monkeypatch):
    monkeypatch.setattr(blur, "_numba_engine", lambda: None)
    image, radii = scene(8, 8, 2.0, dtype=torch.float32)
    assert blur.choose(image, radii) == "stack"
    blur.gather(image, radii)
    with pytest.raises(ValueError, match="needs numba"):
        blur.gather(image, radii, engine="cpu")


def test_compiled_code_survives_a_renamed_folder(tmp_path):
    """numba's cache lies beside the file and remembers module names; a pack's folder has any name."""
    script = (
        "import importlib, sys, torch; blur = importlib.import_module(sys.argv[1] + '.blur');"
        "asked = torch.ones(1, 3, 9, 9), torch.ones(1, 9, 9);"
        "blur.gather(*asked, engine='cpu'); blur.scatter(*asked, engine='cpu');"
        "names = (sys.argv[1] + '.blur.' + name for name in ('numba_gather', 'numba_scatter'));"
        "cpu, scatter = map(sys.modules.get, names);"
        "kernels = cpu._gather_band, scatter._survey, scatter._spread;"
        "print(sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))"
    )
    folder = Path(blur.__file__).parents[1]
    hits = []
    shutil.copytree(folder, tmp_path / "first", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("first", "second"):
        if name == "second":
            (tmp_path / "first").rename(tmp_path / "second")
        done = subprocess.run(
            [sys.executable, "-c", script, name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        hits.append(int(done.stdout))
    assert hits == [0, 3]


def test_refusals():
    image, radii = scene(8, 8, 2.0)
    with pytest.raises(ValueError, match='Unknown blur engine "gaussian"'):
        blur.gather(image, radii, engine="gaussian")
    with pytest.raises(ValueError, match="float32"):
        blur.gather(image, radii, engine="cpu")
    with pytest.raises(ValueError, match="no gradients"):
        blur.gather(image.float().requires_grad_(), radii.float(), engine="cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_progress_and_interrupt(engine):
    image, radii = scene(200, 200, 3.0, dtype=torch.float32)
    steps = []
    blur.gather(image, radii, engine=engine, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1] == len({done for done, _ in steps if done}) > 1

    class Interrupted(Exception):
        pass

    def stop(done, total):
        raise Interrupted

    with pytest.raises(Interrupted):
        blur.gather(image, radii, engine=engine, on_progress=stop)


def test_the_cpu_engine_leaves_torch_its_threads():
    """In a process of its own: numba's threads start with the first blur, and used to bring torch's along."""
    pytest.importorskip("numba")
    code = (
        "import torch\n"
        "from lens_models import blur\n"
        "torch.set_num_threads(1)\n"
        "for _ in range(2):\n"
        "    blur.gather(torch.rand(1, 3, 40, 40), torch.full((1, 40, 40), 3.0), engine='cpu')\n"
        "    print(torch.get_num_threads())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["1", "1"]
