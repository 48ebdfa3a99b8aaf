"""`python -m training study manifest|serve|results`."""

from __future__ import annotations

import argparse
import logging

log = logging.getLogger("fine_defocus")


def add(commands) -> None:
    """Add `study` to the commands of the training."""
    command = commands.add_parser("study", help="ask people to choose between ours and the baselines")
    kinds = command.add_subparsers(required=True, metavar="WHAT")
    kind = kinds.add_parser("manifest", help="what is compared, from the sweeps that `evaluate table1` wrote")
    kind.add_argument(
        "--from", dest="results", required=True, metavar="FOLDER", help="--out of the evaluation"
    )
    kind.add_argument("--prompts", required=True, metavar="FILE", help="--prompts of the evaluation")
    kind.add_argument("--ours", default="11", help="row of ours; default 11")
    kind.add_argument("--baselines", default="", help="rows such as 1,2,9; default all others")
    kind.add_argument("--to", required=True, metavar="FILE", help="JSON file")
    kind.set_defaults(run=_manifest)
    kind = kinds.add_parser(
        "serve",
        help="the page that asks; needs training/people/study/requirements.txt. Started again, it goes on",
    )
    _shared(kind)
    kind.add_argument("--questions", type=int, help="for each participant; default 20")
    kind.add_argument("--seed", type=int, help="of questions and sides; default 0")
    kind.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 lets others in")
    kind.add_argument("--port", type=int, default=7861, help="default 7861")
    kind.set_defaults(run=_serve)
    kind = kinds.add_parser("results", help="shares with intervals as study.json, study.md and study.png")
    _shared(kind)
    kind.add_argument("--out", required=True, help="folder, made where it is missing")
    kind.set_defaults(run=_results)


def _shared(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--manifest", required=True, metavar="FILE", help="JSON: prompts, methods, their files")
    kind.add_argument("--votes", required=True, metavar="FILE", help="SQLite file, which serve makes")


def _manifest(options: argparse.Namespace) -> int:
    from .sweeps import write_manifest

    baselines = [row.strip() for row in options.baselines.split(",") if row.strip()]
    made = write_manifest(options.results, options.prompts, options.ours, baselines, options.to)
    print(f"{options.to}: {len(made.prompts)} prompts x {len(made.baselines)} baselines")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from .manifest import read_manifest
    from .store import Store

    store = Store(options.votes, read_manifest(options.manifest), options.questions, options.seed)
    try:
        from .page import serve
    except ImportError as error:
        raise ImportError(
            f"The page of the study needs gradio ({error}): python -m pip install -r "
            "training/people/study/requirements.txt, in an environment of its own."
        ) from error
    log.info("the study is at http://%s:%d - Ctrl-C ends it; the votes stay", options.host, options.port)
    serve(store, options.host, options.port)
    return 0


def _results(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .manifest import read_manifest
    from .results import write_results
    from .store import Store

    if not Path(options.votes).is_file():
        raise FileNotFoundError(f"{options.votes} is missing: `study serve` writes it with the first start.")
    for path in write_results(Store(options.votes, read_manifest(options.manifest)), options.out):
        print(path)
    return 0
