"""`python -m training curate STAGE --config FILE`."""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from . import STAGES

log = logging.getLogger("fine_defocus")


def add(commands) -> None:
    """Add `curate` to the commands of the training."""
    command = commands.add_parser("curate", help="from folders of photos to packed sets, stage by stage")
    command.add_argument(
        "stage",
        choices=(*STAGES, "report", "all", "train-blur"),
        help="one stage, after those before it; all, with the report; or train the blur network",
    )
    command.add_argument("--config", required=True, help="YAML file, such as training/configs/curate.yaml")
    command.add_argument("--workers", type=int, default=0, help="Ray actors; default 0: this process")
    command.add_argument("--address", help="of a Ray cluster; default: a local one")
    command.add_argument("--gpus", type=float, default=0.0, help="per actor that runs a network; default 0")
    command.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings in place of the file's, as in blur.crops=3",
    )
    command.set_defaults(run=run_command)


def run_command(options: argparse.Namespace) -> int:
    """Do what the command line says."""
    if options.stage == "train-blur":
        from ..config.load import load_settings
        from .classifier.train import Training, train

        train(load_settings(Training, options.config, options.overrides))
        return 0
    from .flow import Engine
    from .options import load
    from .report import write_report

    config = load(options.config, options.overrides)
    engine = Engine(options.workers, options.address, options.gpus)
    if options.stage == "report":
        print(write_report(config))
        return 0
    if options.stage == "all":
        curate(config, engine)
        print(write_report(config))
        return 0
    if options.stage not in config.stages:
        raise ValueError(f"{options.stage}.skip is on in {options.config}: there is nothing to run.")
    run_one(config, options.stage, engine)
    return 0


def curate(config, engine) -> None:
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
