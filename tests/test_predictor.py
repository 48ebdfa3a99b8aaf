"""Focus-distance transformer: eq. 4 and 5, what the network is shown, gradients, training, checkpoints."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lens_models import Camera, Focus, taf_lens
from lens_models.focus.distance import weighted_mean_m
from lens_models.focus.predictor import TOKENS, FocusPredictor, load_predictor, save_predictor
from lens_models.focus.vst.network import VisualSaliencyTransformer, VSTConfig, load_vst
from lens_models.light import srgb_to_linear

VST_WEIGHTS = Path(__file__).parent / "fixtures" / "vst" / "state_dict.safetensors"
TINY = VSTConfig(
    image_px=32,
    width=16,
    heads=1,
    token_width=8,
    backbone_depth=1,
    mutual_depth=1,
    token_depth=1,
    decoder_depth=1,
    features=8,
    classes=0,
)


def tiny(seed: int = 0, **settings) -> FocusPredictor:
    torch.manual_seed(seed)
    return FocusPredictor(VisualSaliencyTransformer(TINY), **settings)


def lively(seed: int = 0, **settings) -> FocusPredictor:
    """A predictor whose saliency and scale depend clearly on what it sees."""
    predictor = tiny(seed, **settings).double()
    with torch.no_grad():
        for name, value in predictor.named_parameters():
            if name.endswith("weight") and value.ndim == 2 and not name.endswith(".w"):
                value.normal_(0.0, 0.7 / value.shape[1] ** 0.5)
    return predictor


def test_equation_4_by_hand():
    depth = torch.tensor([[[1.0, 2.0, 4.0], [8.0, math.inf, 3.0]]])
    saliency = torch.tensor([[[0.5, 0.25, 0.125], [0.0, 1.0, 0.125]]])
    # (1·.5 + 2·.25 + 4·.125 + 3·.125) / (.5 + .25 + .125 + .125) = 1.875; sky's 1.0 is left out
    metres, empty = weighted_mean_m(depth, saliency)
    assert metres.item() == pytest.approx(1.875, abs=1e-6)
    assert not empty.any()


def test_equation_4_of_a_large_half_float_map():
    # summed in float32: half floats would stop counting at 2048
    depth = torch.full((1, 400, 500), 3.0, dtype=torch.float16)
    depth[:, :, 250:] = 5.0
    metres, _ = weighted_mean_m(depth, torch.full_like(depth, 0.5))
    assert metres.item() == pytest.approx(4.0, abs=1e-6)


def test_equation_4_has_no_gradient_through_the_sky():
    depth = torch.tensor([[[1.0, math.inf, 3.0, math.nan, 0.0]]], requires_grad=True)
    saliency = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 1.0]]], requires_grad=True)
    metres, _ = weighted_mean_m(depth, saliency)
    assert metres.item() == pytest.approx(2.0)
    metres.sum().backward()
    assert depth.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0, 0.0]
    assert saliency.grad.flatten().tolist() == [-0.5, 0.0, 0.5, 0.0, 0.0]


def test_the_focus_is_equation_4_of_the_saliency():
    predictor = lively().float()
    srgb, depth = torch.rand(2, 3, 40, 56), 1.0 + 5.0 * torch.rand(2, 40, 56)
    depth[0, :10] = math.inf
    with torch.no_grad():
        focus, saliency = predictor(srgb, depth)
    assert saliency.shape == (2, 40, 56)
    assert saliency.min() > 0
    assert saliency.max() < 1
    known = torch.isfinite(depth)
    for i in range(2):
        d, s = depth[i][known[i]].double(), saliency[i][known[i]].double()
        # against float64: sums of 2240 pixels in float32
        assert focus.distance_m[i].item() == pytest.approx(((d * s).sum() / s.sum()).item(), rel=1e-6)
    assert (focus.scale != 1).all()


def test_a_fresh_scale_is_exactly_one():
    for source in TOKENS:
        focus, _ = tiny(token=source)(torch.rand(1, 3, 24, 24), torch.rand(1, 24, 24) + 1)
        assert focus.scale.tolist() == [1.0]


@pytest.mark.parametrize("source", ["1/16", "1/8", "1/4"])
def test_scale_is_softplus_of_the_chosen_token(source):
    predictor = lively(token=source)
    srgb, depth = torch.rand(1, 3, 32, 32, dtype=torch.float64), torch.rand(1, 32, 32) + 1
    with torch.no_grad():
        seen = predictor.vst(*predictor.network_input(srgb, depth.double()))
        token = seen["token_" + source.replace("/", "_")]
        head = predictor.scale_head
        by_hand = math.log1p(math.exp((token @ head.weight.T + head.bias).item()))
        assert predictor(srgb, depth)[0].scale.item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("normalisation", "polarity", "greys"),
    [
        ("inverse depth", "near is bright", [1.0, 1 / 3, 0.0, 0.0]),
        ("inverse depth", "near is dark", [0.0, 2 / 3, 1.0, 1.0]),
        ("depth", "near is bright", [1.0, 2 / 3, 0.0, 0.0]),
        ("depth", "near is dark", [0.0, 1 / 3, 1.0, 1.0]),
    ],
)
def test_depth_as_the_network_sees_it(normalisation, polarity, greys):
    # 1, 2, 4 m: inverse 1, .5, .25; the sky takes the far end
    predictor = tiny(normalisation=normalisation, polarity=polarity)
    depth = torch.tensor([1.0, 2.0, 4.0, math.inf]).repeat_interleave(8).expand(1, 32, 32)
    _, seen = predictor.network_input(torch.zeros(1, 3, 32, 32), depth)
    for channel, (mean, deviation) in enumerate(
        zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ):
        found = seen[0, channel, 0, 4::8] * deviation + mean
        torch.testing.assert_close(found, torch.tensor(greys), rtol=0, atol=1e-6)


def test_picture_is_stretched_to_the_square():
    predictor = tiny()
    srgb = torch.tensor([0.2, 0.8]).repeat_interleave(50).expand(1, 3, 20, 100)
    seen, _ = predictor.network_input(srgb, torch.ones(1, 20, 100))
    assert seen.shape == (1, 3, 32, 32)
    found = seen[0, :, 16, [2, 30]].T * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor(
        [0.485, 0.456, 0.406]
    )
    torch.testing.assert_close(found, torch.tensor([[0.2] * 3, [0.8] * 3]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [3.0, math.inf])
def test_flat_depth_and_nothing_but_sky(value):
    predictor = tiny()
    depth = torch.full((1, 20, 20), value, requires_grad=True)
    focus, saliency = predictor(torch.rand(1, 3, 20, 20), depth)
    assert focus.distance_m.item() == pytest.approx(value)
    assert saliency.isfinite().all()
    saliency.sum().backward()
    assert depth.grad.isfinite().all()


def test_nothing_salient_falls_back():
    predictor = tiny()
    with torch.no_grad():
        predictor.vst.decoder.pre_1_1.bias.fill_(-1e4)
    depth = torch.full((2, 20, 30), 5.0)
    depth[0, 3, 4], depth[1, 5, 5] = 1.25, 0.75
    focus, saliency = predictor(torch.rand(2, 3, 20, 30), depth)
    assert focus.distance_m.tolist() == [1.25, 0.75]
    assert saliency.max() == 0


def test_batches_and_sizes():
    predictor = tiny()
    focus, saliency = predictor(torch.rand(1, 3, 20, 30), torch.rand(3, 20, 30) + 1)
    assert focus.batch == 3
    assert saliency.shape == (3, 20, 30)
    with pytest.raises(ValueError, match=r"2 pictures.*3 depths|3 depths.*2 pictures"):
        predictor(torch.rand(2, 3, 20, 30), torch.rand(3, 20, 30))
    with pytest.raises(ValueError, match="picture is 30 × 20 px and its depth 31 × 20"):
        predictor(torch.rand(1, 3, 20, 30), torch.rand(1, 20, 31))
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\).*\(1, 20, 30, 3\)"):
        predictor(torch.rand(1, 20, 30, 3), torch.rand(1, 20, 30))
    with pytest.raises(ValueError, match=r"\(batch, height, width\), not \(20, 30\)"):
        predictor(torch.rand(1, 3, 20, 30), torch.rand(20, 30))


def test_half_float_weights():
    predictor = load_predictor(VST_WEIGHTS).to(torch.bfloat16)
    with torch.no_grad():
        focus, saliency = predictor(torch.rand(1, 3, 20, 30), 1 + torch.rand(1, 20, 30))
    assert saliency.dtype == focus.distance_m.dtype == torch.float32
    assert 1 < focus.distance_m.item() < 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"token": "1/2"}, '"1/2" is not a token.*1/16, 1/8, 1/4'),
        ({"normalisation": "log"}, '"log" is not a normalisation'),
        ({"polarity": "bright"}, '"bright" is not a polarity'),
    ],
)
def test_unknown_choices(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**settings)


def test_gradients_through_predictor_and_lens():
    predictor = lively(3)
    generator = torch.Generator().manual_seed(5)
    srgb = torch.rand(1, 3, 7, 8, generator=generator, dtype=torch.float64).requires_grad_()
    depth = (1.2 + 2 * torch.rand(1, 7, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    head, last = predictor.scale_head.weight, predictor.vst.decoder.pre_1_1.weight
    camera = Camera(2.0, 50.0, 1.6)

    def render(srgb, depth, *_):
        focus, _ = predictor(srgb, depth)
        return taf_lens(srgb_to_linear(srgb), depth, focus, camera)

    # tolerances of the lens's own gradcheck (spec/lens.md, section 3)
    inputs = (srgb, depth, head, last)
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True)
    # and all the way through the network, not by the lens alone
    focus, _ = predictor(srgb, depth)
    into_picture, into_depth = torch.autograd.grad(focus.distance_m.sum() + focus.scale.sum(), (srgb, depth))
    assert (into_picture != 0).any()
    assert (into_depth != 0).any()


def test_training_recovers_a_planted_focus():
    # two pictures whose red square was in focus; only the blur tells the network so
    side, planted = 32, torch.tensor([2.0, 2.0])
    generator = torch.Generator().manual_seed(1)
    srgb = 0.3 * torch.rand(2, 3, side, side, generator=generator)
    srgb[:, 2] += 0.3
    srgb[:, 0, 8:24, 12:28] += 0.6
    depth = torch.full((2, side, side), 6.0)
    depth[:, :, :8] = 1.4
    depth[:, 8:24, 12:28] = planted[:, None, None]
    camera, radiance = Camera(1.4, 85.0, 24.0), srgb_to_linear(srgb)
    with torch.no_grad():
        target = taf_lens(radiance, depth, Focus(planted), camera, engine="stack")

    predictor = tiny()
    predictor.scale_head.requires_grad_(False)  # one picture cannot tell f_s from the f-number
    weights = [p for p in predictor.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=2e-3, betas=(0.9, 0.95))
    started = predictor(srgb, depth)[0].distance_m
    assert ((started - planted).abs() > 0.2 * planted).all()
    for _ in range(400):  # eight seeds needed 84 to 189 steps
        focus, _ = predictor(srgb, depth)
        if ((focus.distance_m - planted).abs() < 0.005 * planted).all():
            break
        loss = 1e4 * (taf_lens(radiance, depth, focus, camera) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    focus, _ = predictor(srgb, depth)
    torch.testing.assert_close(focus.distance_m, planted, rtol=0.02, atol=0)  # the 2 %


def test_checkpoint_round_trip(tmp_path):
    predictor = lively(2, token="1/8", normalisation="depth", polarity="near is dark").float().eval()
    path = tmp_path / "focus.safetensors"
    save_predictor(path, predictor, {"steps": 1200, "recipe": "stage 1"})
    assert [file.name for file in tmp_path.iterdir()] == ["focus.safetensors"]
    again = load_predictor(path)
    assert again.settings == predictor.settings
    assert again.metadata == {"steps": 1200, "recipe": "stage 1"}
    assert again.notes == ()
    assert not again.training
    srgb, depth = torch.rand(1, 3, 30, 40), 1 + torch.rand(1, 30, 40)
    with torch.no_grad():
        (focus, saliency), (focus_again, saliency_again) = predictor(srgb, depth), again(srgb, depth)
    torch.testing.assert_close(saliency_again, saliency, rtol=0, atol=0)
    assert focus_again.distance_m.item() == focus.distance_m.item()
    assert focus_again.scale.item() == focus.scale.item()
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["predictor"])["config"] == dataclasses.asdict(TINY)
    with pytest.raises(ValueError, match=r"written as \.safetensors"):
        save_predictor(tmp_path / "focus.pth", predictor)


def test_the_network_alone_is_a_predictor():
    predictor = load_predictor(VST_WEIGHTS, heads=3)
    (note,) = predictor.notes
    assert "the focus scale is 1" in note
    focus, _ = predictor(torch.rand(1, 3, 20, 20), torch.rand(1, 20, 20) + 1)
    assert focus.scale.item() == 1.0
    for key, value in load_vst(VST_WEIGHTS).state_dict().items():
        torch.testing.assert_close(predictor.vst.state_dict()[key], value, rtol=0, atol=0)


def test_checkpoints_that_are_wrong(tmp_path):
    path = tmp_path / "focus.safetensors"
    save_predictor(path, tiny())
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()

    def refused(sentence, changed=tensors, **metadata):
        save_file(changed, tmp_path / "bad.safetensors", metadata={**header, **metadata})
        with pytest.raises(ValueError, match=sentence):
            load_predictor(tmp_path / "bad.safetensors")

    refused("another model.*found 1 tensors such as lora_unet_x", {"lora_unet_x": torch.zeros(3)})
    refused("settings that cannot be read", predictor="{")
    settings = json.loads(header["predictor"])
    refused("settings of another version", predictor=json.dumps({**settings, "shape": "round"}))
    refused('"1/2" is not a token', predictor=json.dumps({**settings, "token": "1/2"}))
    refused(
        r"The scale head of .* does not fit: .* weight should be \(1, 16\) and is \(1, 5\)",
        {**tensors, "scale_head.weight": torch.zeros(1, 5)},
    )
    less = {key: value for key, value in tensors.items() if "decoder2" not in key}
    refused(r"tensors are missing: decoder\.decoder2", less)

    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        load_predictor(path)


def test_checkpoint_without_settings(tmp_path):
    predictor = tiny()
    save_file(predictor.state_dict(), tmp_path / "plain.safetensors")
    again = load_predictor(tmp_path / "plain.safetensors")
    assert "defaults are used" in again.notes[0]
    assert again.settings == predictor.settings
