"""The packed set: what goes in comes out, and every kind of damage is found and named."""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load

from training.data import pack
from training.data.pack import PackedWriter, Record, jpeg_bytes
from training.data.packed import FORMAT, CorruptSample, PackedSet, verify
from training.data.sampler import Batches, EpochSampler


def latent(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(index)
    mean = torch.randn(4, 8, 6, generator=random)
    return mean, mean.exp() / 100


def picture(index: int) -> torch.Tensor:
    """A smooth ramp, which a JPEG keeps."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    return torch.stack([4 * y, 3 * x, torch.full_like(x, 10.0 * index)]).to(torch.uint8)


def record(index: int, **more) -> Record:
    mean, std = latent(index)
    values = {
        "f_number": 1.8 + index,
        "focal_mm": 50.0,
        "sensor_mm": 36.0,
        "caption": f"a photo of {index} cats, ƒ",
        "crop": (index, 2),
        "original": (1200, 1600),
        "jpeg": jpeg_bytes(picture(index)),
        "further": {"sharpness": 0.5 * index},
    }
    return Record(f"sample-{index:03d}", mean, std, **(values | more))


def packed(path, count=12, shard_bytes=8000, **more):
    with PackedWriter(path, about={"rules": "test"}, shard_bytes=shard_bytes) as writer:
        for index in range(count):
            writer.add(record(index, **more))
    return path


@pytest.fixture
def root(tmp_path):
    return packed(tmp_path / "set")


def damage(path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def test_round_trip(root):
    ours = PackedSet(root)
    assert len(ours) == 12
    assert len(ours.manifest["shards"]) > 4  # several shards of each kind, or offsets are not tested
    for index, sample in enumerate(ours):
        mean, std = latent(index)
        assert torch.equal(sample.mean, mean.half())
        assert torch.equal(sample.std, std.half())
        assert (sample.index, sample.key) == (index, f"sample-{index:03d}")
        assert (sample.f_number, sample.focal_mm, sample.sensor_mm) == (1.8 + index, 50.0, 36.0)
        assert sample.caption == f"a photo of {index} cats, ƒ"
        assert (sample.crop, sample.original) == ((index, 2), (1200, 1600))
        assert ours.value(index, "sharpness") == 0.5 * index
        # a JPEG of quality 95 without colour subsampling is within a few of 255 on a ramp; seen: 3
        assert (ours.image(index).int() - picture(index).int()).abs().max() <= 6
    assert ours[-1].key == "sample-011"
    with pytest.raises(IndexError):
        ours[12]
    assert verify(root).problems == ()


def test_the_tars_are_plain_webdataset(root):
    names = []
    for shard in sorted((root / "latents").iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                names.append(member.name)
                assert set(load(tar.extractfile(member).read())) == {"mean", "std"}
                assert (member.mtime, member.uid) == (0, 0)
    assert names == [f"sample-{i:03d}.safetensors" for i in range(12)]


def test_the_same_samples_give_the_same_bytes(root, tmp_path):
    other = packed(tmp_path / "other")
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((root / f).read_bytes() == (other / f).read_bytes() for f in files)
    assert PackedSet(root).identity == PackedSet(other).identity
    assert PackedSet(root).identity != PackedSet(packed(tmp_path / "third", count=11)).identity


def test_a_set_without_pictures(tmp_path):
    ours = PackedSet(packed(tmp_path / "set", jpeg=None))
    assert torch.equal(ours[3].mean, latent(3)[0].half())
    with pytest.raises(ValueError, match='holds no "images"'):
        ours.image(0)


def test_threads_and_forks_and_pickles_read_the_same(root):
    ours = PackedSet(root)
    wanted = [ours[i].mean for i in range(12)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: ours[i % 12].mean, range(240)))
    assert all(torch.equal(m, wanted[i % 12]) for i, m in enumerate(got))
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again[5].mean, wanted[5])

    ours._lock.acquire()  # as another thread may hold it at the moment of a fork
    receive, send = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            send.send_bytes(ours.content(7, "latents"))
        finally:
            os._exit(0)
    ours._lock.release()
    assert receive.poll(20)
    assert receive.recv_bytes() == ours.content(7, "latents")
    os.waitpid(child, 0)


def test_a_damaged_sample_is_found_and_the_others_live(root):
    ours = PackedSet(root)
    shard, offset = ours.value(4, "latent_shard"), ours.value(4, "latent_offset")
    damage(root / shard, offset + 300)
    again = PackedSet(root)
    with pytest.raises(CorruptSample, match=r"Sample 4 \(sample-004\).*is not what was packed"):
        again[4]
    assert torch.equal(again[3].mean, latent(3)[0].half())
    assert again.image(4).shape == (3, 32, 48)
    found = verify(root)
    assert len(found.problems) == 2
    assert shard in found.problems[0]
    assert "sample-004" in found.problems[1]


def test_unchecked_reading_skips_the_hash(root):
    ours = PackedSet(root)
    damage(root / ours.value(4, "latent_shard"), ours.value(4, "latent_offset") + 300)
    assert PackedSet(root, check=False)[4].mean.shape == (4, 8, 6)


def test_a_shard_that_ends_while_it_is_read(root):
    ours = PackedSet(root)
    shard = root / ours.value(11, "latent_shard")
    os.truncate(shard, ours.value(11, "latent_offset") + 10)
    with pytest.raises(CorruptSample, match="ends after 10 of"):
        ours[11]
    with pytest.raises(ValueError, match=r"has \d+ of \d+ bytes"):
        PackedSet(root)


def test_missing_shards_are_named(root):
    for name in ("latents/000001.tar", "images/000000.tar"):
        (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 2 of its \d+ files: .*images/000000.tar, latents"):
        PackedSet(root)


def test_other_versions_and_folders_are_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        PackedSet(tmp_path)
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(manifest | {"format": "fine-defocus packed 9"}))
    with pytest.raises(ValueError, match=f'"fine-defocus packed 9" and this version reads "{FORMAT}"'):
        PackedSet(root)
    (root / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        PackedSet(root)


@pytest.mark.parametrize("opened", [PackedSet, verify])
def test_a_changed_index_is_found(root, opened):
    damage(root / "index.parquet", 200)
    with pytest.raises(ValueError, match=r"index\.parquet is not the one that was packed"):
        opened(root)


def test_the_index_is_written_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "_ROWS", 5)
    ours = PackedSet(packed(tmp_path / "set"))
    assert [s.key for s in ours] == [f"sample-{i:03d}" for i in range(12)]
    assert [ours.value(i, "sharpness") for i in range(12)] == [0.5 * i for i in range(12)]


def test_a_shard_that_went_away_is_no_corrupt_sample(root):
    ours = PackedSet(root)
    (root / ours.value(0, "latent_shard")).unlink()
    with pytest.raises(FileNotFoundError):
        ours[0]


def test_a_run_goes_on_over_a_damaged_sample(root):
    place = PackedSet(root)
    damage(root / place.value(4, "latent_shard"), place.value(4, "latent_offset") + 300)
    batches = Batches(PackedSet(root), EpochSampler(12, seed=0, global_batch=4), max_corrupt_share=0.1)
    drawn = [sample.index for _ in range(6) for sample in next(batches)]
    assert batches.corrupt == {4}
    assert len(drawn) == 24
    assert 4 not in drawn


def test_nothing_appears_before_the_set_is_whole(tmp_path):
    class Stop(Exception):
        pass

    def interrupted():
        with PackedWriter(tmp_path / "set") as writer:
            writer.add(record(0))
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    leftover = tmp_path / ".set.part" / "latents"
    leftover.mkdir(parents=True)
    (leftover / "000009.tar").write_bytes(b"old")
    root = packed(tmp_path / "set", count=2)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert not (root / "latents" / "000009.tar").exists()
    with pytest.raises(FileExistsError, match="exists already"):
        PackedWriter(root)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": "a.b"}, "not a key"),
        ({"key": "sample-000"}, "in the set already"),
        ({"f_number": 0.0}, "f_number of .* must be above 0"),
        ({"focal_mm": float("nan")}, "focal_mm"),
        ({"std": torch.ones(4, 8, 7)}, "of one size"),
        ({"mean": torch.full((4, 8, 6), 1e6)}, "not finite in half precision"),
        ({"jpeg": None}, "without a picture"),
        ({"further": {}}, "other columns than the samples before it: sharpness"),
        ({"further": {"sharpness": 1}}, "sharpness of .* is of the type int"),
        ({"further": {"crop_top": 1}}, "crop_top .* columns of this name already"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, change, sentence):
    with PackedWriter(tmp_path / "set") as writer:
        writer.add(record(0))
        with pytest.raises(ValueError, match=sentence):
            writer.add(dataclasses.replace(record(1), **change))
    assert len(PackedSet(tmp_path / "set")) == 1  # the refused one left nothing behind
    assert verify(tmp_path / "set").problems == ()


def test_an_empty_set_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="No sample was added"), PackedWriter(tmp_path / "set"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_none(tmp_path):
    ours = PackedSet(packed(tmp_path / "set", count=1, jpeg=io.BytesIO(b"no picture").getvalue()))
    with pytest.raises(CorruptSample, match="cannot be decoded"):
        ours.image(0)
