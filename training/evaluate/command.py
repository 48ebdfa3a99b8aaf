"""`python -m training evaluate table1|table2|renderers|ebb`."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

log = logging.getLogger("fine_defocus")


def add(commands: Any) -> None:
    """Add `evaluate` to the commands of the training."""
    command = commands.add_parser("evaluate", help="measure methods, lenses and photos as the paper does")
    kinds = command.add_subparsers(required=True, metavar="WHAT")
    for table, what in (("table1", "methods"), ("table2", "ablations")):
        kind = kinds.add_parser(
            table, help=f"{what} on the same prompts. Started again, it goes on where it stopped"
        )
        kind.add_argument(
            "--config", help="YAML file, or a name of training/configs/evaluate; default table1"
        )
        kind.add_argument("--tiny", action="store_true", help="small untrained networks: does it run at all")
        kind.add_argument("--rows", help="such as 1-3,9,controlnet; default all numbered ones")
        kind.add_argument("--prompts", required=True, metavar="FILE", help=".parquet, .jsonl or .txt")
        kind.add_argument("--limit", type=int, help="only so many prompts")
        kind.add_argument("--workers", type=int, default=0, help="actors of Ray; default 0, this process")
        kind.add_argument("--address", help="of a Ray cluster; default one on this machine")
        kind.add_argument("--gpus", type=float, help="of each actor; default 1, and 0 on a CPU")
        kind.add_argument("--device", choices=("cuda", "cpu"), help="default: the GPU where there is one")
        kind.add_argument("--keep", action="store_true", help="keep the pictures of all prompts")
        _shared(kind)
        kind.set_defaults(run=_table, table=table)
    kind = kinds.add_parser("renderers", help="the lenses alone, on sharp photos with depth")
    kind.add_argument("--folder", required=True, help="pictures with NAME.npy, .exr or .pfm in metres beside")
    kind.add_argument("--config", help="YAML file, or a name of training/configs/evaluate")
    _shared(kind)
    kind.set_defaults(run=_renderers)
    kind = kinds.add_parser("ebb", help="energy at f/16 against f/1.8 on pairs of photos")
    kind.add_argument(
        "--folder", required=True, help="with original and bokeh, or NAME_f16.jpg and NAME_f1.8.jpg"
    )
    kind.add_argument("--sheets", type=int, default=24, help="pairs on sheets; default 24")
    kind.add_argument("--out", required=True, help="folder, made where it is missing")
    kind.set_defaults(run=_ebb)


def _shared(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--out", required=True, help="folder, made where it is missing")
    kind.add_argument("--set", nargs="*", default=(), metavar="KEY=VALUE", help="of the config")


def _table(options: argparse.Namespace) -> int:
    from pathlib import Path

    from tqdm import tqdm

    from .grid import fill_grid, rows_of
    from .options import load_evaluation
    from .prompts import read_prompts
    from .sheets import write_sheets
    from .table import markdown, summary, write_report

    if options.tiny and options.config:
        raise ValueError("--tiny brings its own config: leave --config out, or write source: tiny in it.")
    overrides = [*options.set, *(["keep=true"] if options.keep else [])]
    config = load_evaluation(options.config or ("tiny" if options.tiny else "table1"), overrides)
    rows = rows_of(options.table, options.rows)
    prompts = read_prompts(options.prompts, options.limit)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(rows) * len(prompts), unit="sweep", file=sys.stderr, disable=None) as bar:

        def done(row: str, _unit: str, count: int) -> None:
            bar.set_description(f"row {row}")
            bar.update(count)

        fill_grid(
            config,
            options.table,
            rows,
            prompts,
            options.out,
            workers=options.workers,
            address=options.address,
            gpus=_gpus(options),
            device=options.device,
            on_done=done,
        )
    found = summary(config, options.table, rows, prompts, options.out)
    path = write_report(found, markdown(found), Path(options.out) / f"{options.table}.md")
    for sheet in write_sheets(config, options.table, rows, prompts, options.out):
        log.info("%s", sheet)
    print(path)
    return 0


def _gpus(options: argparse.Namespace) -> float:
    import torch

    if options.gpus is not None:
        return options.gpus
    return 1.0 if options.device != "cpu" and torch.cuda.is_available() else 0.0


def _renderers(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .options import Evaluation, load_evaluation
    from .renderers import judge, photos

    if options.set and not options.config:
        raise ValueError("--set changes a config: name one with --config.")
    config = load_evaluation(options.config, options.set) if options.config else Evaluation()
    judge(photos(options.folder), config, options.out)
    print(Path(options.out) / "renderers.md")
    return 0


def _ebb(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .ebb import judge_pairs

    judge_pairs(options.folder, options.out, sheets=options.sheets)
    print(Path(options.out) / "ebb.md")
    return 0
