"""The commands of the training: `python -m training verify|estimate|doctor|export`.

0 is success, 1 something that was found wrong and said, 2 a command that does not exist.
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
    except (ValueError, OSError, ImportError) as error:
        log.error("%s", error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_verify, _add_estimate, _add_doctor, _add_export):
        add(commands)
    return parser


def _add_verify(commands) -> None:
    command = commands.add_parser("verify", help="hash a packed data set again and name what changed")
    command.add_argument("set", help="folder with manifest.json")
    command.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from .data import verify

    found = verify(options.set)
    for problem in found.problems:
        log.error("%s", problem)
    whole = f"problems {len(found.problems)}" if found.problems else "as packed"
    print(f"{options.set}: samples {found.samples:,}, {found.bytes / 1e9:.2f} GB, {whole}")
    return 1 if found.problems else 0


def _add_estimate(commands) -> None:
    from .estimate import Plan

    command = commands.add_parser("estimate", help="memory, time and disk of a training; nothing is started")
    for field in dataclasses.fields(Plan):
        flag, default = "--" + field.name.replace("_", "-"), field.default
        if isinstance(default, bool):
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        else:
            command.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    command.set_defaults(run=_estimate)


def _estimate(options: argparse.Namespace) -> int:
    from .estimate import Plan, report

    print(report(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Plan)}))
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
    from .doctor import examine

    findings = examine(
        options.folder,
        weights=options.weights,
        device=options.device,
        stage=options.stage,
        needed_gb=options.needed_gb,
    )
    for ok, said in findings:
        print(f"{'ok ' if ok else 'NO '} {said}")
    return 0 if all(ok for ok, _ in findings) else 1


def _add_export(commands) -> None:
    command = commands.add_parser("export", help="write the files that ComfyUI loads, and a model card")
    command.add_argument("--state", help="folder with generator, lora, focus and exif as .safetensors")
    for part in ("generator", "lora", "focus", "exif"):
        command.add_argument(f"--{part}", metavar="FILE", help="comes before the folder's")
    command.add_argument("--to", required=True, help="folder, made where it is missing")
    command.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="default fp16")
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from .export import PARTS, export_state, read_state

    files = {part: getattr(options, part) for part in PARTS if getattr(options, part)}
    written = export_state(read_state(options.state, files), options.to, dtype=options.dtype)
    for file in written:
        print(f"{file.path}  {file.bytes / 1e6:,.1f} MB  sha256 {file.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
