"""`python -m training study manifest|serve|results`."""

from __future__ import annotations

import logging
from pathlib import Path

from ...command_line import OUT, Command, command, option

log = logging.getLogger("fine_defocus")
_SHARED = (
    option("--manifest", required=True, metavar="FILE", help="JSON: prompts, methods, their files"),
    option("--votes", required=True, metavar="FILE", help="SQLite file, which serve makes"),
)


@command(
    "what is compared, from the sweeps that `evaluate table1` wrote",
    option("--from", dest="results", required=True, metavar="FOLDER", help="--out of the evaluation"),
    option("--prompts", required=True, metavar="FILE", help="--prompts of the evaluation"),
    option("--ours", default="11", help="row of ours; default 11"),
    option("--baselines", default="", help="rows such as 1,2,9; default all others"),
    option("--to", required=True, metavar="FILE", help="JSON file"),
)
def manifest(results: str, prompts: str, ours: str, baselines: str, to: str) -> None:
    from .sweeps import write_manifest

    rows = [row.strip() for row in baselines.split(",") if row.strip()]
    made = write_manifest(results, prompts, ours, rows, to)
    print(f"{to}: {len(made.prompts)} prompts x {len(made.baselines)} baselines")


@command(
    "the page that asks; needs training/people/study/requirements.txt. Started again, it goes on",
    *_SHARED,
    option("--questions", type=int, help="for each participant; default 20"),
    option("--seed", type=int, help="of questions and sides; default 0"),
    option("--host", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 lets others in"),
    option("--port", type=int, default=7861, help="default 7861"),
)
def serve(manifest: str, votes: str, questions: int | None, seed: int | None, host: str, port: int) -> None:
    from .manifest import read_manifest
    from .store import Store

    store = Store(votes, read_manifest(manifest), questions, seed)
    try:
        from .page import serve
    except ImportError as error:
        raise ImportError(
            f"The page of the study needs gradio ({error}): python -m pip install -r "
            "training/people/study/requirements.txt, in an environment of its own."
        ) from error
    log.info("the study is at http://%s:%d - Ctrl-C ends it; the votes stay", host, port)
    serve(store, host, port)


@command("shares with intervals as study.json, study.md and study.png", *_SHARED, OUT)
def results(manifest: str, votes: str, out: str) -> None:
    from .manifest import read_manifest
    from .results import write_results
    from .store import Store

    if not Path(votes).is_file():
        raise FileNotFoundError(f"{votes} is missing: `study serve` writes it with the first start.")
    for path in write_results(Store(votes, read_manifest(manifest)), out):
        print(path)


STUDY = Command("study", "ask people to choose between ours and the baselines", [manifest, serve, results])
