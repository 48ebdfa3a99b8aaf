"""Samples per second into and out of a packed set, in any order.

    python benchmarks/packed.py                    # 2000 samples of 256 KiB in a temporary folder
    python benchmarks/packed.py --samples 20000 --folder /data/bench --threads 8

The set was just written and is still in the system's cache: this is the cost of the format and of the hashes,
not of a disk. Nothing is asserted here; 16 GPUs need 25 samples a second.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from measuring import options

from training.data.pack import PackedWriter, Record
from training.data.packed import PackedSet, verify
from training.data.sampler import EpochSampler


def write(path: Path, samples: int, size: int) -> float:
    """Pack random latents; samples per second."""
    mean, std = torch.randn(4, size, size), torch.rand(4, size, size)
    start = time.perf_counter()
    with PackedWriter(path) as writer:
        for index in range(samples):
            writer.add(Record(f"{index:09d}", mean + index, std, 2.8, 50.0, 36.0, "a photo"))
    return samples / (time.perf_counter() - start)


def read(packed: PackedSet, threads: int) -> float:
    """Every sample once, in the order of an epoch; samples per second."""
    order = EpochSampler(len(packed), seed=0, global_batch=len(packed)).indices(0)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        total = sum(mean.shape[0] for mean, _ in pool.map(packed.latent, order, chunksize=64))
        seconds = time.perf_counter() - start
    if total != 4 * len(packed):
        raise RuntimeError(f"{total} channels were read, and {4 * len(packed)} are in the set.")
    return len(packed) / seconds


def main() -> None:
    arguments = options(
        __doc__,
        samples=2000,
        size={"default": 128, "help": "of the latent, pixels a side"},
        folder={"default": None, "type": Path, "help": "where the set is written and deleted again"},
        threads={"default": 4, "help": "that read"},
    )
    torch.set_num_threads(1)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "set"
        print(f"written: {write(path, arguments.samples, arguments.size):.0f} samples/s, hashed and synced")
        start = time.perf_counter()
        gigabytes = verify(path).bytes / 1e9
        print(f"verified: {gigabytes / (time.perf_counter() - start):.2f} GB/s of {gigabytes:.2f} GB")
        for check in (True, False):
            packed = PackedSet(path, check=check)
            for threads in (1, arguments.threads):
                rate = read(packed, threads)
                print(f"read, {'with' if check else 'no'} hash, {threads} threads: {rate:.0f} samples/s")
            packed.close()
    big = 1_500_000
    start = time.perf_counter()
    EpochSampler(big, seed=1, global_batch=1).sample(0)
    print(f"order of {big} samples: {1e3 * (time.perf_counter() - start):.0f} ms")


if __name__ == "__main__":
    main()
