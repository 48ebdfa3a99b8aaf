"""`python -m training evaluate table1|table2|renderers|ebb`."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

from ..command_line import DEVICE, OUT, Command, command, option

log = logging.getLogger("fine_defocus")
_SET = option("--set", dest="overrides", nargs="*", default=(), metavar="KEY=VALUE", help="of the config")


def _table(
    table: str,
    *,
    config: str | None,
    tiny: bool,
    rows: str | None,
    prompts: str,
    limit: int | None,
    gpus: float | None,
    keep: bool,
    out: str,
    overrides: list[str],
    **engine,
) -> None:
    import torch
    from tqdm import tqdm

    from .grid import fill_grid, rows_of
    from .options import load_evaluation
    from .prompts import read_prompts
    from .sheets import write_sheets
    from .table import markdown, summary, write_report

    if tiny and config:
        raise ValueError("--tiny brings its own config: leave --config out, or write source: tiny in it.")
    named = config or ("tiny" if tiny else "table1")
    settings = load_evaluation(named, [*overrides, *(["keep=true"] if keep else [])])
    chosen, entries = rows_of(table, rows), read_prompts(prompts, limit)
    asked = (settings, table, chosen, entries)
    if gpus is None:
        gpus = 1.0 if engine["device"] != "cpu" and torch.cuda.is_available() else 0.0
    Path(out).mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(chosen) * len(entries), unit="sweep", file=sys.stderr, disable=None) as bar:

        def done(row: str, _unit: str, count: int) -> None:
            bar.set_description(f"row {row}")
            bar.update(count)

        fill_grid(*asked, out, gpus=gpus, on_done=done, **engine)
    found = summary(*asked, out)
    path = write_report(found, markdown(found), Path(out) / f"{table}.md")
    for sheet in write_sheets(*asked, out):
        log.info("%s", sheet)
    print(path)


_TABLE_OPTIONS = (
    option("--config", help="YAML file, or a name of training/configs/evaluate; default table1"),
    option("--tiny", action="store_true", help="small untrained networks: does it run at all"),
    option("--rows", help="such as 1-3,9,controlnet; default all numbered ones"),
    option("--prompts", required=True, metavar="FILE", help=".parquet, .jsonl or .txt"),
    option("--limit", type=int, help="only so many prompts"),
    option("--workers", type=int, default=0, help="actors of Ray; default 0, this process"),
    option("--address", help="of a Ray cluster; default one on this machine"),
    option("--gpus", type=float, help="of each actor; default 1, and 0 on a CPU"),
    DEVICE,
    option("--keep", action="store_true", help="keep the pictures of all prompts"),
    OUT,
    _SET,
)


@command(
    "the lenses alone, on sharp photos with depth",
    option("--folder", required=True, help="pictures with NAME.npy, .exr or .pfm in metres beside"),
    option("--config", help="YAML file, or a name of training/configs/evaluate"),
    OUT,
    _SET,
)
def renderers(folder: str, config: str | None, out: str, overrides: list[str]) -> None:
    from .options import Evaluation, load_evaluation
    from .renderers import judge, photos

    if overrides and not config:
        raise ValueError("--set changes a config: name one with --config.")
    judge(photos(folder), load_evaluation(config, overrides) if config else Evaluation(), out)
    print(Path(out) / "renderers.md")


@command(
    "energy at f/16 against f/1.8 on pairs of photos",
    option("--folder", required=True, help="with original and bokeh, or NAME_f16.jpg and NAME_f1.8.jpg"),
    option("--sheets", type=int, default=24, help="pairs on sheets; default 24"),
    OUT,
)
def ebb(folder: str, sheets: int, out: str) -> None:
    from .ebb import judge_pairs

    judge_pairs(folder, out, sheets=sheets)
    print(Path(out) / "ebb.md")


_AGAIN = "on the same prompts. Started again, it goes on where it stopped"
EVALUATE = Command(
    "evaluate",
    "measure methods, lenses and photos as the paper does",
    [
        Command("table1", f"methods {_AGAIN}", partial(_table, "table1"), _TABLE_OPTIONS),
        Command("table2", f"ablations {_AGAIN}", partial(_table, "table2"), _TABLE_OPTIONS),
        renderers,
        ebb,
    ],
)
