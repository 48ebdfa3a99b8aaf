"""Blur, photo check and captions: the code that real networks run through, with tiny random ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.training import curate_models
from tests.training.curate_photos import photo, scene
from training.config.load import ConfigError, load_settings
from training.curate import blur, caption, command
from training.curate import photo as photo_stage
from training.curate.classifier.net import (
    CLASSES,
    TINY,
    BlurNet,
    Calibration,
    load_blur_net,
    load_trunk,
    save_blur_net,
)
from training.curate.classifier.samples import (
    Sample,
    convolve,
    degraded,
    example,
    from_masks,
    shake_kernel,
    split,
)
from training.curate.classifier.train import Training, calibrate, evaluate, train
from training.curate.flow import Engine, read_done
from training.curate.options import Blur, Caption, Curation, Photo
from training.curate.pixels import crops

VIEWS = Blur(source="tiny", crop_px=32, crops=2, batch=3)


def config(tmp_path, **sections) -> Curation:
    return Curation(photos=(str(tmp_path / "in"),), output=str(tmp_path / "out"), **sections)


def rows_of(tmp_path, count: int, **more):
    paths = [photo(tmp_path / "in" / f"{k}.jpg", seed=k).name for k in range(count)]
    return [{"root": 0, "path": path, "reason": "", "set": "deep", **more} for path in paths]


def assert_same(one, other):
    weights = other.state_dict()
    assert all(torch.equal(weight, weights.pop(name)) for name, weight in one.state_dict().items())
    assert not weights


def test_the_trunk_is_resnext_50_32x4d():
    with torch.device("meta"):
        network = BlurNet()
    names = network.body.state_dict()
    # torchvision's ResNeXt-50 32x4d without its last layer: 25 028 904 − 2 049 000 weights
    assert sum(p.numel() for p in network.body.parameters()) == 22_979_904
    assert names["layer1.0.conv2.weight"].shape == (128, 4, 3, 3)
    assert names["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert names["layer4.2.conv3.weight"].shape == (2048, 1024, 1, 1)
    assert names["layer3.5.bn2.running_var"].shape == (512,)
    logits, maps = network(torch.empty(1, 3, 3, 64, 64, device="meta"))
    assert logits.shape == (1, 3)
    assert maps.shape == (1, 3, 16, 16)


def test_trunk_weights_are_put_in(tmp_path):
    torch.manual_seed(0)
    one, other = BlurNet(TINY), BlurNet(TINY)
    file = tmp_path / "trunk.pth"
    torch.save({**one.body.state_dict(), "fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}, file)
    load_trunk(other, file)
    assert_same(one.body, other.body)
    with pytest.raises(ValueError, match="is not ResNeXt-50"):
        load_trunk(BlurNet(), file)


def test_the_order_of_the_crops_does_not_count():
    torch.manual_seed(0)
    network = BlurNet(TINY).eval()
    views = torch.rand(2, 4, 3, 32, 32)
    with torch.inference_mode():
        logits, _ = network(views)
        turned, _ = network(views[:, [0, 3, 1, 2]])
        swapped, _ = network(views[:, [1, 0, 2, 3]])
    assert torch.allclose(logits, turned, atol=1e-6)  # sums in another order
    assert not torch.allclose(logits, swapped, atol=1e-3)  # the thumbnail is another input
    with pytest.raises(ValueError, match="must be"):
        network(views[:, :1])


def test_a_network_comes_back_as_it_was_saved(tmp_path):
    network, calibration = BlurNet(TINY), Calibration(1.7, (0.9, 0.8, 0.5))
    save_blur_net(network, calibration, tmp_path / "net.safetensors")
    again, told = load_blur_net(tmp_path / "net.safetensors")
    assert told == calibration
    assert again.config == TINY
    assert_same(network, again)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no blur network"):
        load_blur_net(tmp_path / "other.safetensors")


def test_crops_are_the_photos_own_pixels():
    picture = scene(3, 100, 80)
    pixels = np.asarray(picture)
    (centre, corner, *_, last) = crops(picture, 32, 14)
    assert np.array_equal(np.asarray(centre), pixels[24:56, 34:66])
    assert np.array_equal(np.asarray(corner), pixels[:32, :32])
    assert last.size == (32, 32)
    assert len({c.tobytes() for c in crops(picture, 32, 14)}) == 14
    (padded,) = crops(scene(3, 20, 10), 32, 1)
    assert padded.size == (32, 32)


def test_the_blur_stage_drops_what_the_set_is_not_made_of(tmp_path):
    cut = {"blur": VIEWS}
    worker = blur.BlurWorker(config(tmp_path, **cut))
    rows = rows_of(tmp_path, 5)
    (tmp_path / "in" / "4.jpg").write_bytes(b"no picture")
    found = worker.judge(rows)
    assert found[4]["reason"].startswith("its pixels cannot be decoded")
    for verdict in found[:4]:
        told = [verdict[f"p_{name}"] for name in CLASSES]
        assert sum(told) == pytest.approx(1.0)
        assert verdict["blur"] == CLASSES[int(np.argmax(told))]
        assert verdict["kept"] == (verdict["blur"] == "none")
    # one photo at a time gives the same, to rounding
    alone = blur.BlurWorker(config(tmp_path, blur=VIEWS.model_copy(update={"batch": 1}))).judge(rows)
    assert [v.get("p_none") for v in alone[:4]] == pytest.approx([v["p_none"] for v in found[:4]], abs=1e-6)
    worker.calibration = Calibration(thresholds=(1.1, 1.1, 1.1))
    assert {v["reason"] for v in worker.judge(rows[:2])} == {"its blur is not certain"}


def test_a_shake_keeps_the_light_and_blurs():
    random = np.random.default_rng(0)
    for length in (7.0, 30.0):
        kernel = shake_kernel(length, random)
        assert kernel.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert kernel.min() >= 0
        assert kernel.shape[0] <= length + 5
    flat = torch.full((1, 3, 20, 30), 0.4)
    assert torch.allclose(convolve(flat, kernel), flat, atol=1e-4)  # an FFT in float32
    point = torch.zeros(1, 3, 41, 41)
    point[..., 20, 20] = 1.0
    spread = convolve(point, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert spread[0, 0].argmax().item() == 19 * 41 + 20  # one up, as the kernel says


def test_samples_and_their_masks(tmp_path):
    from PIL import Image

    photo(tmp_path / "photos" / "a.jpg", seed=1)
    half = np.zeros((64, 96), np.uint8)
    half[:, 48:] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(half).save(tmp_path / "masks" / "a.png")
    (sample,) = from_masks(tmp_path / "photos", tmp_path / "masks", "desirable")
    options = Blur(crop_px=64, crops=1)
    found = example(sample, options)
    assert found.label == CLASSES.index("desirable")
    assert found.views.shape == (2, 3, 64, 64)
    assert found.blurred[1].mean().item() == pytest.approx(
        0.5, abs=0.01
    )  # the centre crop, half of it blurred
    mirrored = example(sample, options, np.random.default_rng(1))
    assert mirrored.blurred.shape == (2, 64, 64)
    assert example(Sample(sample.path, 0), options).blurred.max() == 0
    assert example(Sample(sample.path, 1), options).blurred.isnan().all()
    bad = degraded(sample, options, np.random.default_rng(0))
    assert bad.label == CLASSES.index("undesirable")
    sharp = example(sample, options).views[1].float()
    assert bad.views[1].float().diff(dim=-1).square().mean() < 0.5 * sharp.diff(dim=-1).square().mean()
    photo(tmp_path / "photos" / "b.jpg")
    with pytest.raises(ValueError, match=r"1 of 2 photos .* have no mask"):
        from_masks(tmp_path / "photos", tmp_path / "masks", "desirable")


def test_the_split_follows_from_the_names():
    samples = [Sample(f"/x/{k}.jpg", k % 3) for k in range(400)]
    parts = split(samples, 0.2)
    assert sorted(s.path for part in parts for s in part) == sorted(s.path for s in samples)
    assert [len(p) for p in parts] == pytest.approx([320, 40, 40], abs=25)  # four deviations of a fair draw
    assert split(samples[::-1], 0.2)[2] == parts[2][::-1]
    moved = split([Sample(s.path.replace("/x/", "/y/"), s.label) for s in samples], 0.2)
    assert [s.path[3:] for s in moved[1]] == [s.path[3:] for s in parts[1]]


def test_thresholds_reach_the_precision():
    # called "none" with rising certainty; the two most uncertain ones are wrong
    certain = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.55])
    logits = torch.stack([certain.log(), ((1 - certain) / 2).log(), ((1 - certain) / 2).log()], dim=1)
    labels = torch.tensor([0, 0, 0, 1, 2])
    found = calibrate(logits, labels, 0.95)
    told = evaluate(logits, labels, found)
    assert told["confusion"] == [[3, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert told["precision"]["none"] == 1.0
    assert told["precision"]["desirable"] is None
    assert found.thresholds[1] > 1.0
    tied = calibrate(logits[:1].expand(5, -1), labels, 0.95)  # all equally certain: none may be called
    assert tied.thresholds[0] > 1.0


def test_training_learns_sharp_from_blurred(tmp_path, monkeypatch):
    """Coarse scenes against fine ones, and degraded copies: a tiny network tells them apart in seconds."""
    for k in range(40):
        noise = np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8)
        fine, coarse = tmp_path / "none" / f"{k}.png", tmp_path / "bokeh" / f"{k}.png"
        from PIL import Image

        for path, picture in ((fine, Image.fromarray(noise)), (coarse, scene(k, 64, 48))):
            path.parent.mkdir(exist_ok=True)
            picture.save(path)
    (tmp_path / "train.yaml").write_text(
        f"output: {tmp_path}/net.safetensors\n"
        f"folders: {{none: ['{tmp_path}/none'], desirable: ['{tmp_path}/bokeh']}}\n"
        f"unlabelled: ['{tmp_path}/none']\nviews: {{source: tiny, crop_px: 32, crops: 1}}\ntiny: true\n"
        "steps: 60\nbatch: 12\nlr: 0.01\nrounds: 1\nheld_out: 0.4\n"
        "certain: 0.6\nprecision: 0.6\ndevice: cpu\n"
    )
    found = train(load_settings(Training, tmp_path / "train.yaml", ["seed=3"]))
    told = json.loads((tmp_path / "net.json").read_text())
    assert told == found
    assert told["labelled"] == 80
    right = sum(found["confusion"][k][k] for k in range(3))
    assert right >= 0.6 * sum(map(sum, found["confusion"]))  # one in three by chance
    assert (tmp_path / "net.png").stat().st_size > 1000
    _, calibration = load_blur_net(tmp_path / "net.safetensors")
    assert list(calibration.thresholds) == list(found["thresholds"].values())
    assert calibration.temperature == found["temperature"]
    cut = Blur(weights=str(tmp_path / "net.safetensors"), crop_px=32, crops=1)
    skipped = {name: {"skip": True} for name in ("duplicates", "photo", "caption", "pack")}
    rows_of(tmp_path, 2)
    setting = config(tmp_path, blur=cut, rules={"least_side_px": 48}, **skipped)
    command.run_all(setting, Engine())
    ended = list(read_done(setting, "blur").rows(setting.output))
    assert [row["p_none"] + row["p_desirable"] + row["p_undesirable"] for row in ended] == pytest.approx(
        [1, 1]
    )
    with pytest.raises(ValueError, match="the classes are"):
        train(Training(output="x", folders={"sharp": (str(tmp_path / "none"),)}))
    with pytest.raises(ValueError, match="no photos of desirable to learn from"):
        train(Training(output="x", folders={"none": (str(tmp_path / "none"),)}))
    with pytest.raises(ConfigError):
        load_settings(Training, tmp_path / "train.yaml", ["stepz=3"])


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    return str(curate_models.internvl(tmp_path_factory.mktemp("internvl")))


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    return str(curate_models.blip2(tmp_path_factory.mktemp("blip2")))


def test_the_photo_check_says_a_probability(tmp_path, internvl):
    rows = rows_of(tmp_path, 5)
    worker = photo_stage.PhotoCheckWorker(config(tmp_path, photo=Photo(model=internvl, batch=2)))
    told = [v["p_yes"] for v in worker.judge(rows)]
    assert all(0.0 < p < 1.0 for p in told)
    assert len(set(told)) == 5  # it looks at the pictures
    alone = photo_stage.PhotoCheckWorker(config(tmp_path, photo=Photo(model=internvl, batch=1)))
    assert [v["p_yes"] for v in alone.judge(rows)] == pytest.approx(told, abs=1e-5)
    least = sorted(told)[2]
    strict = photo_stage.PhotoCheckWorker(
        config(tmp_path, photo=Photo(model=internvl, least_p_yes=least)), worker.model
    )
    found = strict.judge(rows)
    assert sum(v["kept"] for v in found) == 3
    assert all(v["p_yes"] is not None for v in found)  # stored for those that are dropped, too


def test_the_probability_is_that_of_yes_against_no(tmp_path, internvl):
    check = photo_stage.InternVL(Photo(model=internvl))
    words = {i: check.tokenizer.convert_ids_to_tokens(i) for i in (*check.yes, *check.no)}
    assert {words[i] for i in check.yes} == {"Yes", "yes"}
    assert {words[i] for i in check.no} == {"No", "no"}
    (before,) = check.p_yes([scene(1)])
    kept_logits = check.network.lm_head.weight.data.clone()
    check.network.lm_head.weight.data[sorted(check.yes)] = kept_logits[sorted(check.no)]
    assert check.p_yes([scene(1)]) == pytest.approx([0.5], abs=1e-6)  # the same words, the same odds
    assert abs(before - 0.5) > 1e-3


def test_captions_are_words_and_the_same_every_time(tmp_path, blip2):
    rows = rows_of(tmp_path, 4)
    options = Caption(model=blip2, max_tokens=6, batch=3)
    found = caption.CaptionWorker(config(tmp_path, caption=options)).judge(rows)
    again = caption.CaptionWorker(config(tmp_path, caption=options.model_copy(update={"batch": 4}))).judge(
        rows
    )
    assert found == again
    texts = [v["caption"] for v in found]
    known = {*curate_models.WORDS, "<unk>"}
    assert all(set(text.split()) <= known and len(text.split()) <= 6 for text in texts)
    assert any(texts)
    (tmp_path / "in" / "2.txt").write_text("a horse\n in the snow ")
    beside = config(tmp_path, caption=options.model_copy(update={"beside": ".txt"}))
    assert [v["caption"] for v in caption.CaptionWorker(beside).judge(rows)] == [
        *texts[:2],
        "a horse in the snow",
        texts[3],
    ]
    prompted = caption.Blip2(options.model_copy(update={"prompt": "a photo of"}))
    assert prompted.prompt.shape[1] == caption.Blip2(options).prompt.shape[1] + 3


def test_an_empty_caption_is_a_reason(tmp_path):
    class Silent:
        side = 28

        def captions(self, pictures):
            return ["" for _ in pictures]

    (found,) = caption.CaptionWorker(config(tmp_path), Silent()).judge(rows_of(tmp_path, 1))
    assert (found["kept"], found["reason"]) == (False, "its caption is empty")


@pytest.mark.parametrize("section", ["photo", "caption"])
def test_models_are_never_downloaded(tmp_path, section):
    worker, options = {
        "photo": (photo_stage.PhotoCheckWorker, Photo),
        "caption": (caption.CaptionWorker, Caption),
    }[section]
    with pytest.raises(ConfigError, match=f"{section}.revision"):
        worker(config(tmp_path, **{section: options(model="some/model")}))
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        worker(config(tmp_path, **{section: options(model=str(tmp_path))}))


def test_unknown_maps_teach_nothing():
    from training.curate.classifier.samples import Example
    from training.curate.classifier.train import loss_of

    torch.manual_seed(0)
    network = BlurNet(TINY).eval()
    views = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    setting = Training(output="x", device="cpu", tiny=True)
    silent = loss_of(network, [Example(views, 1, torch.full((2, 32, 32), math.nan))], setting)
    told = loss_of(network, [Example(views, 1, torch.ones(2, 32, 32))], setting)
    with torch.no_grad():
        logits, maps = network(views[None] / 255.0)
        mapped = torch.nn.functional.softplus(-maps).mean()
    assert silent.item() == pytest.approx(-logits[0].log_softmax(-1)[1].item(), rel=1e-5)
    assert (told - silent).item() == pytest.approx(0.5 * mapped.item(), rel=1e-4)
