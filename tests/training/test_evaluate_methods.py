"""The rows of the tables on tiny networks: what each is told, what its apertures share, and its own parts."""

from __future__ import annotations

import pytest
import torch

from lens_models import Camera
from lens_models.generator.camera_words import with_camera_words
from lens_models.generator.schedule import alphas_bar, diffused, timesteps
from training.config.load import ConfigError
from training.evaluate import generators
from training.evaluate.camera_tokens import CameraTokens
from training.evaluate.generators import FewSteps, Guided, Request, ddim
from training.evaluate.grid import rows_of
from training.evaluate.methods import TABLE1, TABLE2, PerAperture, ThroughTheLens
from training.evaluate.networks import NetworkCache
from training.evaluate.options import load_evaluation
from training.export.lora_names import merge

PROMPT = "a dog on a forest path"


@pytest.fixture(scope="module")
def networks():
    return NetworkCache(load_evaluation("tiny"))


def sweep(networks, method, f_numbers=(1.8, 8.0, 16.0, 22.0), prompt=PROMPT, seed=0):
    with torch.no_grad():
        return method.generate(networks, prompt, Camera(torch.tensor(f_numbers), 50.0, 36.0), seed)


@pytest.mark.parametrize("row", [*TABLE1, *(f"table2 {name}" for name in TABLE2)])
def test_every_row_gives_linear_light_at_every_aperture(networks, row):
    table, name = (TABLE2, row.removeprefix("table2 ")) if row.startswith("table2 ") else (TABLE1, row)
    found = sweep(networks, table[name])
    assert found.linear.shape == (4, 3, 64, 64)
    assert found.linear.dtype == torch.float32
    assert found.linear.isfinite().all()
    assert found.linear.std() > 1e-3
    assert (found.linear[0] - found.linear[-1]).abs().max() > 1e-3, "the aperture makes no difference"
    assert (found.focus_m is None) != isinstance(table[name], ThroughTheLens)


def test_words_say_the_camera():
    assert with_camera_words("a dog", "exif", 2.8, 50.0) == "a dog, f/2.8, 50 mm"
    assert with_camera_words("a dog", "depth_of_field", 10.0, 50.0) == "a dog, Deep Depth-of-Field"
    assert with_camera_words("a dog", "depth_of_field", 9.9, 50.0) == "a dog, Shallow Depth-of-Field"
    assert with_camera_words("a dog", "plain", 9.9, 50.0) == "a dog"
    with pytest.raises(ValueError, match='"told" are no camera words'):
        with_camera_words("a dog", "told", 9.9, 50.0)


def test_two_words_are_two_pictures(networks):
    found = sweep(networks, TABLE1["2"])
    assert torch.equal(found.linear[0], found.linear[1])
    assert torch.equal(found.linear[2], found.linear[3])


def test_the_sharp_picture_and_its_depth_are_made_once_for_all_apertures(networks, monkeypatch):
    made = []
    for name in ("decode", "depth_m"):
        whole = getattr(networks, name)
        monkeypatch.setattr(networks, name, lambda *a, n=name, f=whole: (made.append(n), f(*a))[1])
    sweep(networks, TABLE1["10"], f_numbers=(1.8, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0))
    assert made == ["decode", "depth_m"]


def test_the_noise_is_the_prompts_and_the_seeds_alone(networks):
    row = TABLE1["9"]
    alone, other, again = (sweep(networks, row, prompt=prompt) for prompt in (PROMPT, "a cat", PROMPT))
    # one and the same computation, with what the order of sums may cost
    assert torch.allclose(alone.linear, again.linear, atol=1e-5)
    assert (again.linear - other.linear).abs().max() > 0.01
    assert (sweep(networks, row, seed=1).linear - alone.linear).abs().max() > 0.01


def test_ddim_finds_the_picture_of_a_network_that_knows_it():
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table, seen = alphas_bar(), []

    def predict(noisy, t):
        seen.append(t)
        return (noisy - table[t].sqrt() * clean) / (1 - table[t]).sqrt()

    start = diffused(clean, noise, table[999])
    # float64, and the first estimate divides by √ᾱ of t = 999, 0.068
    assert torch.allclose(ddim(predict, start, 20), clean, atol=1e-9)
    assert tuple(seen) == timesteps(20)


def test_a_network_of_velocity_and_one_of_noise_make_the_same_picture(networks, monkeypatch):
    net, table = networks.camera_tokens(), alphas_bar()
    request = Request(PROMPT, PROMPT, 2.8, 50.0, 0)
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    class Knowing(torch.nn.Module):
        def __init__(self, velocity):
            super().__init__()
            self.velocity, self.weight = velocity, torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, noisy, t, encoder_hidden_states):
            eps = (noisy - table[t].sqrt() * clean) / (1 - table[t]).sqrt()
            out = table[t].sqrt() * eps - (1 - table[t]).sqrt() * clean if self.velocity else eps
            return type("Out", (), {"sample": out})

    pictures = []
    for velocity in (False, True):
        knowing = generators.TokenGuided()
        swapped = type(net)(Knowing(velocity), net.vae, net.tokenizer, net.encoder, net.tokens, velocity)
        monkeypatch.setattr(networks, "camera_tokens", lambda found=swapped: found)
        with torch.no_grad():
            pictures.append(knowing.picture(networks, request))
    assert torch.allclose(*pictures, atol=1e-5)  # the autoencoder is float32


def test_camera_tokens_are_normed_logarithms_in_a_fixed_order():
    tokens = CameraTokens(6)
    found = tokens(torch.tensor([[50.0, 2.8, 100.0, 0.01], [50.0, 5.6, 100.0, 0.01]]))
    assert found.shape == (2, 4, 6)
    assert torch.allclose(found.mean(dim=-1), torch.zeros(2, 4), atol=1e-6)
    changed = (found[0] - found[1]).abs().amax(dim=-1) > 1e-6
    assert changed.tolist() == [False, True, False, False]


def test_a_lora_is_added_to_linear_layers_and_convolutions():
    random = torch.Generator().manual_seed(0)
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(5, 4), "b": torch.nn.Conv2d(3, 6, 3)})
    before = {name: p.clone() for name, p in network.named_parameters()}
    down, up = torch.randn(2, 5, generator=random), torch.randn(4, 2, generator=random)
    into, out = torch.randn(2, 3, 3, 3, generator=random), torch.randn(6, 2, 1, 1, generator=random)
    lora = {"unet.a.lora_A.default.weight": down, "unet.a.lora_B.default.weight": up}
    merge(network, lora | {"b.lora_A.weight": into, "b.lora_B.weight": out}, alpha=1.0)
    assert torch.allclose(network["a"].weight, before["a.weight"] + 0.5 * up @ down)
    x = torch.randn(1, 3, 7, 7, generator=random)
    through = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, into), out)
    plain = torch.nn.functional.conv2d(x, before["b.weight"], before["b.bias"])
    assert torch.allclose(network["b"](x), plain + 0.5 * through, atol=1e-5)
    for tensors, said in (
        (
            {"c.lora_A.weight": down, "c.lora_B.weight": up},
            "layers are not of this UNet: lora_unet_c",
        ),
        ({"a.lora_A.weight": down}, "is incomplete: it has only lora_down"),
        ({"a.lora_A.weight": up, "a.lora_B.weight": down}, "do not fit"),
        ({"a.weight": down}, "is not a LoRA's tensor"),
    ):
        with pytest.raises(ValueError, match=said):
            merge(network, tensors)


def test_what_a_method_lacks_is_named():
    networks = NetworkCache(load_evaluation("tiny", ["source=files"]), "cpu")
    for method, said in (
        (PerAperture("", Guided()), "base is not set"),
        (TABLE1["9"], r"students.stage1 is not set.*\(set: none\)"),
        (TABLE1["5"], "camera_tokens is not set"),
    ):
        with pytest.raises(ConfigError, match=said):
            sweep(networks, method)


def test_a_student_without_an_embedding_is_refused(networks, monkeypatch):
    bare = type(networks.student("ours"))(networks.student("ours").unet)
    monkeypatch.setattr(networks, "student", lambda _name: bare)
    with pytest.raises(ValueError, match="has no EXIF embedding"):
        sweep(networks, PerAperture("", FewSteps("ours", reads_camera=True)))


def test_rows_are_chosen_by_name_and_range():
    assert rows_of("table1", None) == [str(k) for k in range(1, 12)]
    assert rows_of("table1", "9-11, 1,controlnet") == ["1", "9", "10", "11", "controlnet"]
    assert rows_of("table2", "1-5") == ["1", "2", "3", "5"]
    with pytest.raises(ConfigError, match='"12" is no row of table1'):
        rows_of("table1", "12")


def test_settings_are_checked():
    with pytest.raises(ConfigError, match='there is no key "sead"'):
        load_evaluation("tiny", ["sead=1"])
    with pytest.raises(ConfigError, match="they must rise"):
        load_evaluation("tiny", ["f_numbers=[4, 2]"])
    with pytest.raises(ConfigError, match="give a YAML file or one of table1, tiny"):
        load_evaluation("table9")
    assert load_evaluation("tiny").hash == load_evaluation("tiny", ["resamples=500"]).hash
    assert load_evaluation("tiny").hash != load_evaluation("tiny", ["seed=1"]).hash
