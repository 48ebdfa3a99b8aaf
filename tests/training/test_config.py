"""Configs: what is refused and in which words, inheritance, overrides, the hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.config.load import ConfigError, _keys
from training.config.run import Config, load_config

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
SMOKE = CONFIGS / "smoke_cpu.yaml"


#: Curation and evaluation have configs of their own kinds.
TRAINED = sorted(
    path for path in CONFIGS.glob("**/*.yaml") if path.stem != "curate" and path.parent.name != "evaluate"
)


@pytest.mark.parametrize("path", TRAINED, ids=lambda p: p.stem)
def test_every_config_loads(path):
    assert load_config(path).stage in (1, 2)


def test_the_papers_values():
    config = load_config(CONFIGS / "stage2_sdxl.yaml")
    assert config.timesteps == (999, 749, 499, 249)
    assert (config.fake_updates, config.guidance, config.batch, config.size_px) == (5, 8.0, 1, 1024)
    optimiser = config.optimiser
    assert (optimiser.lr, optimiser.fake_lr, optimiser.focus_lr) == (5e-7, 5e-7, 5e-7)
    assert (optimiser.betas, optimiser.weight_decay) == ((0.9, 0.999), 0.01)
    assert (optimiser.clip, optimiser.warmup_steps) == (10.0, 500)
    assert (config.loss.dmd, config.loss.gan, config.loss.huber) == (1.0, 1.0, 200.0)
    assert (config.loss.gan_generator, config.loss.gan_critic) == (5e-3, 1e-2)
    assert (config.dmd_timesteps.low, config.dmd_timesteps.high) == (20, 980)
    assert (config.gan_timesteps.low, config.gan_timesteps.high) == (0, 1000)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("loss.hubr=1", 'there is no key "hubr" in loss; did you mean "loss.huber"?'),
        ("sede=1", 'there is no key "sede"; did you mean "seed"?'),
        ("huber=1", 'there is no key "huber"; did you mean "loss.huber"?'),
        ("loss.seed=1", 'there is no key "seed" in loss; did you mean "seed"?'),
        ("optimiser.qqqqqq=1", 'there is no key "qqqqqq" in optimiser.'),
        ("loss.huber=-1", "loss.huber input should be greater than or equal to 0"),
        ("loss.huber=.nan", "loss.huber input should be a finite number"),
        ("timesteps=[249,999]", "timesteps are [249, 999]: they must fall"),
        ("dmd_timesteps={low: 5, high: 5}", "low is 5 and high 5"),
        ("size_px=100", "size_px input should be a multiple of 8"),
        ("mu_fake=both", "mu_fake input should be 'shared', 'dof_embed' or 'separate'"),
        (
            "models.source=files",
            "models.vae and models.text and models.depth and models.focus must be set",
        ),
        ("loss.huber.delta=1", "loss.huber.delta cannot be set: huber is a value"),
        ("steps", '"steps" is not an override'),
    ],
)
def test_refusals(override, sentence, tmp_path):
    parent = tmp_path / "run.yaml"
    parent.write_text(f"extends: {SMOKE}\nloss: {{huber: 3}}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(parent, [override])
    assert sentence in str(error.value)


def test_nothing_left_to_train_is_refused():
    with pytest.raises(ConfigError, match="both off"):
        load_config(SMOKE, ["train_generator=false", "train_focus=false"])
    with pytest.raises(ConfigError, match="stage 1 trains nothing else"):
        load_config(SMOKE, ["train_generator=false", "stage=1"])


def test_a_file_goes_before_its_parent_and_an_override_before_both(tmp_path):
    (tmp_path / "base.yaml").write_text(
        f"extends: {SMOKE}\nseed: 3\nloss: {{huber: 5, gan: 2}}\n", encoding="utf-8"
    )
    (tmp_path / "run.yaml").write_text("extends: base.yaml\nloss: {huber: 7}\n", encoding="utf-8")
    config = load_config(tmp_path / "run.yaml", ["optimiser.lr=5e-6", "seed=4"])
    assert (config.loss.huber, config.loss.gan, config.loss.dmd) == (7.0, 2.0, 1.0)
    assert (config.seed, config.optimiser.lr, config.models.source) == (4, 5e-6, "tiny")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="There is no config"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"extends itself: a.yaml > b.yaml > a.yaml"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="must be keys with values, not a list"):
        load_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(tmp_path / "broken.yaml")


def test_the_hash_follows_what_the_result_depends_on():
    first = load_config(SMOKE).hash
    assert load_config(SMOKE).hash == first
    assert load_config(SMOKE, ["output=elsewhere", "relay=false", "checkpointing=false"]).hash == first
    for override in ("seed=1", "loss.huber=100", "optimiser.betas=[0.8,0.999]", "lens.max_radius_px=9"):
        assert load_config(SMOKE, [override]).hash != first


def test_every_key_is_obeyed_somewhere():
    """An option that no code reads would be a promise."""
    declared = {"config/run.py", "config/sections.py", "__main__.py"}
    code = "\n".join(
        file.read_text(encoding="utf-8")
        for file in sorted(CONFIGS.parent.glob("**/*.py"))
        if file.relative_to(CONFIGS.parent).as_posix() not in declared and file.stem != "options"
    )
    assert "getattr(self.config.data, name)" in code
    by_the_sets_name = {"data.deep", "data.shallow"}
    for name in set(_keys(Config)) - by_the_sets_name:
        assert re.search(rf"\.{name.rpartition('.')[2]}\b", code), name
