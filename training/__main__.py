"""The commands of the training: `python -m training COMMAND`, see `--help`.

0 is success, 1 an error, with a sentence that says what to do, 2 a command that does not exist.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from .command_line import DEVICE, Command, add, command, option
from .curate.command import curate
from .evaluate.command import EVALUATE
from .people.study.command import STUDY
from .run.budget import TrainingPlan, report

log = logging.getLogger("fine_defocus")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; arguments: those of the command line when not given."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return run(arguments)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        log.error("%s", error)
        log.debug("", exc_info=True)
        return 1


def run(arguments: Sequence[str] | None = None) -> int:
    """As `main`, but raises what the command does."""
    parser = ArgumentParser(prog="python -m training", description=__doc__)
    trained = ("the generator of sharp pictures", "generator and focus, through the lens")
    stages = [_stage(number, what) for number, what in enumerate(trained, start=1)]
    add(parser, [curate, *stages, EVALUATE, STUDY, export, verify, toy_sets, weights, estimate, doctor])
    options = vars(parser.parse_args(arguments))
    return options.pop("run")(**options) or 0


def _stage(stage: int, what: str) -> Command:
    default = f"stage{stage}_sdxl"
    file = f"YAML file, or the name of one of training/configs; default {default}"
    return Command(
        f"stage{stage}",
        f"train {what}; under torchrun on many GPUs. Started again, it goes on where it stopped",
        partial(_train, stage),
        (
            option("config", nargs="?", default=default, help=file),
            option("override", nargs="*", help="KEY=VALUE, such as data.deep=sets/deep"),
            DEVICE,
        ),
    )


def _train(stage: int, *, config: str, override: list[str], device: str | None) -> None:
    from .config.load import ConfigError, find_config
    from .config.run import load_config
    from .run.runner import run

    if "=" in config:
        config, override = f"stage{stage}_sdxl", [config, *override]
    settings = load_config(find_config(config), override)
    if settings.stage != stage:
        raise ConfigError(
            f"{config} is a config of stage {settings.stage}: use stage{settings.stage}, or add "
            f"stage={stage}."
        )
    print(run(settings, device))


@command(
    "write the files that ComfyUI loads, and a model card",
    [
        option("--run", dest="trained", metavar="FOLDER", help="a run's folder"),
        option("--state", help="folder with generator, lora, focus and exif as .safetensors"),
    ],
    option("--step", type=int, help="checkpoint of the run; default the newest"),
    *(
        option(f"--{part}", metavar="FILE", help="comes before the folder's")
        for part in ("generator", "lora", "focus", "exif")
    ),
    option("--to", required=True, help="folder, made where it is missing"),
    option("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="default fp16"),
)
def export(
    trained: str | None, state: str | None, step: int | None, to: str, dtype: str, **parts: str | None
) -> None:
    from .export.export import export_state, read_state
    from .run.run_folder import read_run

    files = {part: file for part, file in parts.items() if file}
    if trained and files:
        raise ValueError("--run brings all parts itself: give either a run, or files and a folder of them.")
    weights = read_run(trained, step) if trained else read_state(state, files)
    for file in export_state(weights, to, dtype=dtype):
        print(f"{file.path}  {file.bytes / 1e6:,.1f} MB  sha256 {file.sha256}")


@command(
    "hash a packed data set again and name what changed", option("set", help="folder with manifest.json")
)
def verify(set: str) -> int:
    from .data.packed import verify

    found = verify(set)
    for problem in found.problems:
        log.error("%s", problem)
    whole = f"problems {len(found.problems)}" if found.problems else "as packed"
    print(f"{set}: samples {found.samples:,}, {found.bytes / 1e9:.2f} GB, {whole}")
    return 1 if found.problems else 0


@command(
    "pack two small made-up sets, to try a run with",
    option("--config", default="smoke_cpu", help="gives size and autoencoder; default smoke_cpu"),
    option("--count", type=int, default=32, help="pictures in each set; default 32"),
    option("--to", required=True, help="folder, which gets deep and shallow"),
)
def toy_sets(config: str, count: int, to: str) -> None:
    from .config.load import find_config
    from .config.run import load_config
    from .data.toy_sets import write
    from .networks.build import build

    settings = load_config(find_config(config))
    for path in write(to, build(settings).vae, settings.size_px, count):
        print(path)


@command(
    "fetch what the metrics read; nothing else ever fetches it",
    option("action", choices=("list", "fetch")),
    option("names", nargs="*", help="of the list; all when none is given"),
    option("--to", default="weights", help="default weights"),
)
def weights(action: str, names: list[str], to: str) -> None:
    from .weights import FILES, fetch

    for name in names or FILES:
        if action == "list" and name in FILES:
            print(f"{name}: {FILES[name].title}, {FILES[name].licence}, {FILES[name].url}")
        else:
            print(fetch(name, to))


@command(
    "memory, time and disk of a training; nothing is started",
    *(
        option("--" + name.replace("_", "-"), type=type(value), default=value, help=f"default {value}")
        for name, value in asdict(TrainingPlan()).items()
    ),
)
def estimate(**plan) -> None:
    print(report(TrainingPlan(**plan)))


@command(
    "whether this machine can train, and what to do if not",
    option("--device", choices=("cuda", "cpu"), default="cuda", help="default cuda"),
    option("--stage", type=int, choices=(1, 2), default=2, help="default 2"),
    option("--folder", default=".", help="where checkpoints will go"),
    option("--needed-gb", type=float, help="free disk; three checkpoints by default"),
    option("--weights", nargs="*", default=(), help="files that the configuration names"),
)
def doctor(**options) -> int:
    from .run.doctor import examine

    findings = examine(**options)
    for ok, message in findings:
        print(f"{'ok ' if ok else 'NO '} {message}")
    return 0 if all(ok for ok, _ in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
