"""The commands of the training: `python -m training COMMAND`, see `--help`.

0 is success, 1 an error, with a sentence that says what to do, 2 a command that does not exist.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence

log = logging.getLogger("fine_defocus")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; arguments: those of the command line when not given."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        log.error("%s", error)
        log.debug("", exc_info=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    from .curate.command import add as add_curate
    from .evaluate.command import add as add_evaluate
    from .people.study.command import add as add_study

    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        add_curate,
        _add_stage,
        add_evaluate,
        add_study,
        _add_export,
        _add_verify,
        _add_toy_sets,
        _add_weights,
        _add_estimate,
        _add_doctor,
    ):
        add(commands)
    return parser


def _add_stage(commands) -> None:
    for stage, what in ((1, "the generator of sharp pictures"), (2, "generator and focus, through the lens")):
        command = commands.add_parser(
            f"stage{stage}",
            help=f"train {what}; under torchrun on many GPUs. Started again, it goes on where it stopped",
        )
        command.add_argument(
            "config",
            nargs="?",
            default=f"stage{stage}_sdxl",
            help=f"YAML file, or the name of one of training/configs; default stage{stage}_sdxl",
        )
        command.add_argument("override", nargs="*", help="KEY=VALUE, such as data.deep=sets/deep")
        command.add_argument("--device", choices=("cuda", "cpu"), help="default: the GPU where there is one")
        command.set_defaults(run=_stage, stage=stage)


def _stage(options: argparse.Namespace) -> int:
    from .config.load import ConfigError, find_config
    from .config.run import load_config
    from .run.runner import run

    if "=" in options.config:
        options.override.insert(0, options.config)
        options.config = f"stage{options.stage}_sdxl"
    config = load_config(find_config(options.config), options.override)
    if config.stage != options.stage:
        raise ConfigError(
            f"{options.config} is a config of stage {config.stage}: use stage{config.stage}, or add "
            f"stage={options.stage}."
        )
    print(run(config, options.device))
    return 0


def _add_toy_sets(commands) -> None:
    command = commands.add_parser("toy-sets", help="pack two small made-up sets, to try a run with")
    command.add_argument(
        "--config", default="smoke_cpu", help="gives size and autoencoder; default smoke_cpu"
    )
    command.add_argument("--count", type=int, default=32, help="pictures in each set; default 32")
    command.add_argument("--to", required=True, help="folder, which gets deep and shallow")
    command.set_defaults(run=_toy_sets)


def _toy_sets(options: argparse.Namespace) -> int:
    from .config.load import find_config
    from .config.run import load_config
    from .data.toy_sets import write
    from .networks.build import build

    config = load_config(find_config(options.config))
    for path in write(options.to, build(config).vae, config.size_px, options.count):
        print(path)
    return 0


def _add_verify(commands) -> None:
    command = commands.add_parser("verify", help="hash a packed data set again and name what changed")
    command.add_argument("set", help="folder with manifest.json")
    command.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from .data.packed import verify

    found = verify(options.set)
    for problem in found.problems:
        log.error("%s", problem)
    whole = f"problems {len(found.problems)}" if found.problems else "as packed"
    print(f"{options.set}: samples {found.samples:,}, {found.bytes / 1e9:.2f} GB, {whole}")
    return 1 if found.problems else 0


def _add_weights(commands) -> None:
    command = commands.add_parser("weights", help="fetch what the metrics read; nothing else ever fetches it")
    command.add_argument("action", choices=("list", "fetch"))
    command.add_argument("names", nargs="*", help="of the list; all when none is given")
    command.add_argument("--to", default="weights", help="default weights")
    command.set_defaults(run=_weights)


def _weights(options: argparse.Namespace) -> int:
    from .weights import FILES, fetch

    for name in options.names or FILES:
        if options.action == "list" and name in FILES:
            print(f"{name}: {FILES[name].title}, {FILES[name].licence}, {FILES[name].url}")
        else:
            print(fetch(name, options.to))
    return 0


def _add_estimate(commands) -> None:
    from .run.budget import TrainingPlan

    command = commands.add_parser("estimate", help="memory, time and disk of a training; nothing is started")
    for field in dataclasses.fields(TrainingPlan):
        flag, kind = "--" + field.name.replace("_", "-"), type(field.default)
        command.add_argument(flag, type=kind, default=field.default, help=f"default {field.default}")
    command.set_defaults(run=_estimate)


def _estimate(options: argparse.Namespace) -> int:
    from .run.budget import TrainingPlan, report

    names = [field.name for field in dataclasses.fields(TrainingPlan)]
    print(report(TrainingPlan(**{name: getattr(options, name) for name in names})))
    return 0


def _add_doctor(commands) -> None:
    command = commands.add_parser("doctor", help="whether this machine can train, and what to do if not")
    command.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default cuda")
    command.add_argument("--stage", type=int, choices=(1, 2), default=2, help="default 2")
    command.add_argument("--folder", default=".", help="where checkpoints will go")
    command.add_argument("--needed-gb", type=float, help="free disk; three checkpoints by default")
    command.add_argument("--weights", nargs="*", default=(), help="files that the configuration names")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from .run.doctor import examine

    findings = examine(
        options.folder,
        weights=options.weights,
        device=options.device,
        stage=options.stage,
        needed_gb=options.needed_gb,
    )
    for ok, message in findings:
        print(f"{'ok ' if ok else 'NO '} {message}")
    return 0 if all(ok for ok, _ in findings) else 1


def _add_export(commands) -> None:
    command = commands.add_parser("export", help="write the files that ComfyUI loads, and a model card")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--run", dest="trained", metavar="FOLDER", help="a run's folder")
    source.add_argument("--state", help="folder with generator, lora, focus and exif as .safetensors")
    command.add_argument("--step", type=int, help="checkpoint of the run; default the newest")
    for part in ("generator", "lora", "focus", "exif"):
        command.add_argument(f"--{part}", metavar="FILE", help="comes before the folder's")
    command.add_argument("--to", required=True, help="folder, made where it is missing")
    command.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="default fp16")
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from .export.export import PARTS, export_state, read_state
    from .run.run_folder import read_run

    files = {part: getattr(options, part) for part in PARTS if getattr(options, part)}
    if options.trained and files:
        raise ValueError("--run brings all parts itself: give either a run, or files and a folder of them.")
    state = read_run(options.trained, options.step) if options.trained else read_state(options.state, files)
    written = export_state(state, options.to, dtype=options.dtype)
    for file in written:
        print(f"{file.path}  {file.bytes / 1e6:,.1f} MB  sha256 {file.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
