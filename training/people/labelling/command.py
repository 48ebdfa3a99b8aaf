"""`python -m training label serve|export`."""

from __future__ import annotations

import argparse
import logging

log = logging.getLogger("fine_defocus")


def add(commands) -> None:
    """Add `label` to the commands of the training."""
    command = commands.add_parser("label", help="photos labelled by hand, for the blur network of curate")
    kinds = command.add_subparsers(required=True, metavar="WHAT")
    kind = kinds.add_parser(
        "serve",
        help="the page that asks; needs training/people/labelling/requirements.txt. Started again, "
        "it goes on",
    )
    _shared(kind)
    kind.add_argument("--shared", type=int, help="photos that every annotator gets; default 50")
    kind.add_argument("--seed", type=int, help="of the order; default 0")
    kind.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 lets others in")
    kind.add_argument("--port", type=int, default=7862, help="default 7862")
    kind.set_defaults(run=_serve)
    kind = kinds.add_parser("export", help="the table that curate train-blur reads, and how far people agree")
    _shared(kind)
    kind.add_argument("--to", required=True, metavar="FILE", help="CSV with path and label")
    kind.set_defaults(run=_export)


def _shared(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--photos", required=True, metavar="FOLDER", help="all pictures below it")
    kind.add_argument("--labels", required=True, metavar="FILE", help="SQLite file, made where it is missing")


def _serve(options: argparse.Namespace) -> int:
    from .store import Labels

    labels = Labels(options.labels, options.photos, options.shared, options.seed)
    try:
        from .page import serve
    except ImportError as error:
        raise ImportError(
            f"The page needs gradio ({error}): python -m pip install -r "
            "training/people/labelling/requirements.txt, "
            "in an environment of its own."
        ) from error
    log.info("the page is at http://%s:%d - Ctrl-C ends it; the labels stay", options.host, options.port)
    serve(labels, options.host, options.port)
    return 0


def _export(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .results import agreement, export
    from .store import Labels

    if not Path(options.labels).is_file():
        raise FileNotFoundError(f"{options.labels} is missing: `label serve` writes it with the first start.")
    labels = Labels(options.labels, options.photos)
    counts = export(labels, options.to)
    print(
        f"{options.to}: " + (", ".join(f"{n} {label}" for label, n in sorted(counts.items())) or "no labels")
    )
    for a, b, both, kappa in agreement(labels.all()):
        said = "none" if kappa is None else f"{kappa:.2f}"
        print(f"{a} and {b}: {both} photos, Cohen's kappa {said}")
    return 0
