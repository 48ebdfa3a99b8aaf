"""`python -m training curate STAGE --config FILE`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ..command_line import command, option
from . import STAGES

log = logging.getLogger("fine_defocus")


@command(
    "from folders of photos to packed sets, stage by stage",
    option(
        "stage",
        choices=(*STAGES, "report", "all", "train-blur"),
        help="one stage, after those before it; all, with the report; or train the blur network",
    ),
    option("--config", required=True, help="YAML file, such as training/configs/curate.yaml"),
    option("--workers", type=int, default=0, help="Ray actors; default 0: this process"),
    option("--address", help="of a Ray cluster; default: a local one"),
    option("--gpus", type=float, default=0.0, help="per actor that runs a network; default 0"),
    option(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings in place of the file's, as in blur.crops=3",
    ),
)
def curate(stage: str, config: str, overrides: list[str], **engine) -> None:
    if stage == "train-blur":
        from ..config.load import load_settings
        from .classifier.train import Training, train

        train(load_settings(Training, config, overrides))
        return
    from .flow import Engine
    from .options import load
    from .report import write_report

    settings = load(config, overrides)
    if stage == "all":
        run_all(settings, Engine(**engine))
    elif stage != "report":
        if stage not in settings.stages:
            raise ValueError(f"{stage}.skip is on in {config}: there is nothing to run.")
        run_one(settings, stage, Engine(**engine))
    if stage in ("all", "report"):
        print(write_report(settings))


def run_all(config, engine) -> None:
    """All stages that the config does not leave out, in one session of Ray where there are workers."""
    from ..units import ray_session

    done = None
    with ray_session(engine.workers, engine.address) if engine.workers else nullcontext():
        for stage in config.stages:
            done = run_one(config, stage, engine, done)


def run_one(config, stage: str, engine, before=None):
    """One stage. before: the stage before it, where it was just run. Returns its `Done`."""
    from .flow import counts, read_done

    module = importlib.import_module(f".{stage}", __package__)
    arguments = [config]
    if stage != "index":
        arguments.append(before or read_done(config, config.stages[config.stages.index(stage) - 1]))
    with _progress(stage) as progress:
        done = module.run(*arguments, engine, progress)
    kept, dropped = counts(config, done)
    log.info("%s: %s kept, %s dropped", stage, f"{kept:,}", f"{dropped:,}")
    return done


@contextmanager
def _progress(stage: str) -> Iterator[Any]:
    """A bar on stderr; None without tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(desc=stage, unit=" photos", smoothing=0.05) as bar:
        yield bar
