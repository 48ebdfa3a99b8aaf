"""`stage1` and `stage2`: a run from its config to its checkpoints, in one process or in torchrun's.

A run goes on from its newest checkpoint by being started again with the same config.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ..config.run import FREE, Config
from ..images import save_png
from ..networks.build import build
from ..networks.fsdp import device_mesh, shard_networks
from ..networks.models import ExifGenerator
from ..networks.text import build_text
from . import samples
from .checkpoint import Checkpoints, Resumed, stop_requests
from .loop import Trainer
from .run_folder import CHECKPOINTS, starting_weights, write
from .run_log import Histograms, RunLog
from .source import PackedSource

log = logging.getLogger("fine_defocus")

#: What a run may be resumed with besides `FREE`: the sets may have moved (their contents are compared), and
#: the global batch may be made of other parts.
_FREE_ON_RESUME = (*FREE, "steps", "batch", "accumulation", "data")
#: Losses beside the progress bar.
_PROGRESS = ("fake", "critic", "dmd", "gan", "huber")


class Ranks(NamedTuple):
    """This process among those of the run; the first one writes."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def joined(device: str | None = None) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, if it did and they have not met.

    device: "cpu" or "cuda"; the GPU where there is one when not given.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    met = dist.is_initialized()
    if met:
        world, rank = dist.get_world_size(), dist.get_rank()
    else:
        world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    own = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    if own.type == "cuda":
        torch.cuda.set_device(own)
        torch.set_float32_matmul_precision("high")  # TF32 for what stays float32: autoencoder and depth
    if world > 1 and not met:
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    if rank:
        log.setLevel(logging.WARNING)
    try:
        yield Ranks(rank, world, own)
    finally:
        if dist.is_initialized() and not met:
            dist.destroy_process_group()


def run(config: Config, device: str | None = None) -> Path:
    """Train until the config's last step or until asked to stop by SIGTERM; gives the run's folder.

    Raises ValueError for a config or data set that does not fit what is there; NotFinite with the batch
    saved; SaveFailed for a full disk; RuntimeError when too many samples are corrupt.
    """
    with joined(device) as ranks:
        if config.lora_rank and ranks.world > 1:
            raise ValueError(
                f"lora_rank is {config.lora_rank} and there are {ranks.world} processes: LoRAs are trained "
                "on one GPU. Start one process, or train all weights (lora_rank=0)."
            )
        text = build_text(config, ranks.device)
        source = PackedSource(config, text, rank=ranks.rank, world=ranks.world)
        networks = build(config, ranks.device, starting_weights(config.models))
        predictor = getattr(networks.focus, "settings", None)
        if ranks.world > 1:
            shard_networks(networks, config, device_mesh(ranks.device), text(["warm-up"]))
        trainer = Trainer(config, networks)
        checkpoints = Checkpoints(
            Path(config.output) / CHECKPOINTS,
            {**config.model_dump(mode="json"), "sets_read": source.identities},
            keep_last=config.saving.keep_last,
            keep_every=config.saving.keep_every,
            may_change=_FREE_ON_RESUME,
        )
        resumed = checkpoints.load(trainer.trained, trainer.optimisers)
        first = _first(resumed, source, config)
        if ranks.rank == 0:
            write(config, unet=_unet_config(networks.generator), predictor=predictor, data=source.identities)
        try:
            _train(trainer, source, checkpoints, ranks, first)
        finally:
            source.close()
    return Path(config.output)


def _train(
    trainer: Trainer, source: PackedSource, checkpoints: Checkpoints, ranks: Ranks, first: int
) -> None:
    from tqdm import tqdm

    config, folder, writes = trainer.config, Path(trainer.config.output), ranks.rank == 0
    histograms = Histograms()
    run_log = RunLog(
        folder, first=first, writes=writes, device=ranks.device, tensorboard=config.log.tensorboard
    )
    bar = tqdm(total=config.steps, initial=first, unit="step", disable=not writes)
    batch = {"global_batch": source.global_batch}
    with stop_requests(ranks.device) as asked_to_stop, run_log, bar:
        run_log.event("started", first, world=ranks.world, **batch, config=config.hash)
        started = time.perf_counter()
        for step in range(first, config.steps):
            done = trainer.step(step, source)
            after = step + 1
            values = run_log.step(done, **_measured(started, ranks.device, source))
            histograms.add(done.seen)
            numbers = (f"{name} {values[name]:.3g}" for name in _PROGRESS if name in values)
            bar.set_postfix_str(" ".join((done.turn.set_name, *numbers)), refresh=False)
            bar.update()
            if _due(after, config.log.histograms_every):
                run_log.event("histograms", after, **histograms.take(ranks.device))
            last, asked = after == config.steps, asked_to_stop()
            if _due(after, config.saving.every) or last or asked:
                path = checkpoints.save(after, trainer.trained, trainer.optimisers, batch)
                run_log.event("saved", after, path=str(path))
            if config.log.samples_every and (last or _due(after, config.log.samples_every)):
                grid = samples.sheet(trainer, source.text)
                if writes:
                    save_png(folder / "samples" / f"step_{after:06d}.png", grid)
                run_log.picture("samples", after, grid)
            if asked and not last:
                run_log.event("stopped", after)
                log.info("Asked to stop: step %d is saved. Start the same command to go on.", after)
                return
            started = time.perf_counter()
    log.info("%d steps are done: %s", config.steps, folder)


def _first(resumed: Resumed | None, source: PackedSource, config: Config) -> int:
    """The step to begin with. Raises ValueError where the order of the samples would change."""
    if resumed is None:
        return 0
    there = resumed.further["global_batch"]
    if there != source.global_batch:
        raise ValueError(
            f"{resumed.path} was written with a global batch of {there}, and processes × accumulation × "
            f"batch is {source.global_batch} now: change accumulation or batch so that it is the same."
        )
    if resumed.step >= config.steps:
        log.info("%s is at step %d of %d: nothing is left to do.", resumed.path, resumed.step, config.steps)
    else:
        log.info("Going on from %s.", resumed.path)
    return resumed.step


def _measured(started: float, device: torch.device, source: PackedSource) -> dict[str, float]:
    values = {"seconds": round(time.perf_counter() - started, 4), "corrupt_samples": source.corrupt}
    if device.type == "cuda":
        values["peak_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
        torch.cuda.reset_peak_memory_stats(device)
    return values


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _unet_config(generator: Any) -> dict[str, Any]:
    """The generator's config.json."""
    inner = generator.unet if isinstance(generator, ExifGenerator) else generator
    return {key: value for key, value in dict(inner.config).items() if not key.startswith("_")}
