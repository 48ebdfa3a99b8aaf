"""Runs of a curation that grow, stop, are killed and are spread over processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.training import curate_photos
from tests.training.test_curate_flow import config, paths, rows
from training.config.load import ConfigError
from training.curate import command
from training.curate.flow import Engine, read_done
from training.curate.options import load

REPO = Path(__file__).resolve().parents[2]


def test_more_photos_redo_only_what_they_touch(tmp_path):
    curate_photos.many(tmp_path / "in", 300)
    setting = config(tmp_path, duplicates={"skip": True}, pack={"skip": True})
    command.run_all(setting, Engine())
    before = {stage: read_done(setting, stage) for stage in setting.stages}
    inodes = {f.name: f.stat().st_ino for s in before.values() for f in s.files(setting.output)}
    curate_photos.photo(tmp_path / "in" / "001" / "IMG_00150b.jpg", seed=99)
    command.run_all(setting, Engine())
    for stage in setting.stages:
        now = read_done(setting, stage)
        fresh = [f for f in now.files(setting.output) if inodes.get(f.name) != f.stat().st_ino]
        assert len(fresh) <= 2  # a new name may end a unit and so make two of one
        assert fresh
        assert len(now.units) > 8
    # a unit that is gone moves the later ones up, and they keep their names
    shutil.rmtree(tmp_path / "in" / "000")
    inodes = {
        f.name: f.stat().st_ino for s in setting.stages for f in read_done(setting, s).files(setting.output)
    }
    command.run_all(setting, Engine())
    for stage in setting.stages:
        now = read_done(setting, stage)
        assert sum(inodes.get(f.name) != f.stat().st_ino for f in now.files(setting.output)) <= 1
        assert len(now.units) < len(before[stage].units)
    curate_photos.many(tmp_path / "in", 300)
    command.run_all(setting, Engine())
    assert len(paths(setting, "index")) == 301
    assert len(set(paths(setting, "index"))) == 301


def test_other_settings_are_noticed(tmp_path):
    curate_photos.many(tmp_path / "in", 20)
    setting = config(tmp_path, pack={"skip": True})
    command.run_all(setting, Engine())
    other = config(tmp_path, pack={"skip": True}, rules={"least_side_px": 5000})
    assert read_done(other, "exif").folder == read_done(setting, "exif").folder
    with pytest.raises(ConfigError, match="run with other settings"):
        command.run_one(other, "duplicates", Engine())
    command.run_all(other, Engine())
    assert not any(row["kept"] for row in rows(other, "rules"))
    assert rows(other, "duplicates") == []
    with pytest.raises(ConfigError, match="has not been run"):
        read_done(config(tmp_path / "elsewhere"), "index")


def _started(file: Path, log: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "training", "curate", "all", "--config", str(file)]
    with log.open("ab") as out:
        return subprocess.Popen(
            arguments, cwd=REPO, stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )


@pytest.mark.slow
def test_killed_five_times_every_row_is_there_once(tmp_path):
    """2000 photos; a run is killed at five random moments of its work and the sixth ends it."""
    curate_photos.many(tmp_path / "in", 2000)
    given = config(tmp_path, unit_photos=64, duplicates={"skip": True}, pack={"skip": True}).model_dump(
        mode="json"
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given))
    setting, out = load(tmp_path / "c.yaml"), tmp_path / "out"
    moments, killed_with, log = random.Random(5), [], tmp_path / "log.txt"

    def files():
        return {f.name: f.stat().st_ino for f in out.glob("*-*-*/[!.]*.parquet")}

    while len(killed_with) < 5:
        before = files()
        process = _started(tmp_path / "c.yaml", log)
        # some time after the first new unit, so that it dies at its work and not before
        while process.poll() is None and len(files()) == len(before):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = files()
        assert before.items() <= after.items()  # nothing that was done is done again
        killed_with.append(len(after))
        if (out / "rules.json").is_file():
            pytest.fail(f"the run was through before it could be killed five times: {killed_with}")
    print("units that were there after each kill:", killed_with)
    before = files()
    assert _started(tmp_path / "c.yaml", log).wait() == 0, log.read_text()[-2000:]
    assert before.items() <= files().items()
    assert not list(out.glob("*/.*.part.*"))
    seen = Counter(paths(setting, "index"))
    assert len(seen) == 2000
    assert set(seen.values()) == {1}
    assert Counter(paths(setting, "exif")) == seen
    assert Counter(paths(setting, "rules")) == seen
    # one that was never killed finds the same
    shutil.copytree(out, tmp_path / "killed")
    shutil.rmtree(out)
    assert _started(tmp_path / "c.yaml", log).wait() == 0
    for stage in setting.stages:
        done = read_done(setting, stage)
        killed = setting.model_copy(update={"output": str(tmp_path / "killed")})
        assert rows(killed, stage) == list(done.rows(out))


@pytest.fixture
def one_ray():
    """One Ray for all stages, which takes many seconds to start."""
    ray = pytest.importorskip("ray")
    paths = {"env_vars": {"PYTHONPATH": str(REPO)}}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=paths
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_ray_actors_find_what_one_process_finds(tmp_path, one_ray):
    curate_photos.many(tmp_path / "in", 80)
    alone = config(tmp_path, duplicates={"skip": True})
    # in a fresh process like the actors': latents are compared to the bit
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(alone.model_dump(mode="json")))
    assert _started(tmp_path / "c.yaml", tmp_path / "log.txt").wait() == 0
    many = config(tmp_path, duplicates={"skip": True}, output=str(tmp_path / "many"))
    command.run_all(many, Engine(workers=2))
    for stage in alone.stages:
        assert rows(many, stage) == rows(alone, stage)
    assert (
        json.loads((tmp_path / "many/deep/manifest.json").read_text())["shards"]
        == json.loads((tmp_path / "out/deep/manifest.json").read_text())["shards"]
    )


@pytest.mark.slow
def test_stage_1_trains_on_what_was_curated(tmp_path):
    curate_photos.many(tmp_path / "in", 80)
    command.run_all(config(tmp_path, pack={"source": "tiny", "size_px": 64}), Engine())
    settings = ["stage=1", "steps=5", f"data.deep={tmp_path}/out/deep", f"output={tmp_path}/run"]
    arguments = [sys.executable, "-m", "training", "stage1", "smoke_cpu", *settings, "--device", "cpu"]
    done = subprocess.run(arguments, cwd=REPO, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(tmp_path / "run") in done.stdout


def test_all_stages_share_one_session_of_ray(tmp_path, monkeypatch):
    import ray

    curate_photos.many(tmp_path / "in", 12)
    setting, opened = config(tmp_path), []
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda *args, **more: (opened.append(1), init(*args, **more))[1])
    command.run_all(setting, Engine(workers=1))
    assert opened == [1]
    assert not ray.is_initialized()
    assert rows(setting, "pack")
