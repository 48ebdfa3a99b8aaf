"""The project's commands. Plain Python 3.10 or newer; everything else is fetched into the cache folder.

    python dev.py demo [--serve] [--output DIR]   a real photo through a real camera, in the real ComfyUI
    python dev.py test [pytest arguments]         the whole test suite, ComfyUI and browser included
    python dev.py pictures [NAME ...]             the pictures of the help pages (web/docs) anew

Environment: FINE_DEFOCUS_CACHE (default .dev), COMFYUI_PATH with COMFYUI_PYTHON (a ComfyUI of yours),
COMFYUI_URL (one that runs already), COMFYUI_ARGS (default --cpu), FINE_DEFOCUS_CHROMIUM.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from tools import provision
from tools.demo import demo
from tools.server import HostError

REPO = Path(__file__).resolve().parent

log = logging.getLogger("fine_defocus")


def test(arguments: list[str]) -> int:
    python = provision.project()
    if not os.environ.get("COMFYUI_URL"):
        provision.host()
    browser = provision.chromium()
    # threads of pytest, ComfyUI and the browser that wait for each other by spinning starve all three
    env = {"OMP_NUM_THREADS": "1", **os.environ, **({"FINE_DEFOCUS_CHROMIUM": browser} if browser else {})}
    # what starts servers and browsers wants the machine for itself; the rest is spread over its cores
    alone = "host or browser"
    runs = (
        [arguments]
        if arguments
        else [["-n", "logical", "--dist", "loadfile", "-m", f"not ({alone})"], ["-m", alone]]
    )
    codes = []
    for run in runs:
        log.info("running pytest %s ...", " ".join(run))
        codes.append(subprocess.run([python, "-m", "pytest", *run], cwd=REPO, env=env).returncode)
    return max(codes)


def pictures(names: list[str]) -> int:
    python = provision.project()
    if not os.environ.get("COMFYUI_URL"):
        provision.host()
    return subprocess.run([python, "-m", "tools.help_pictures", *names], cwd=REPO).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "demo", help="render the demo photo: an aperture sweep, two lenses side by side, an animation"
    )
    run.add_argument("--serve", action="store_true", help="leave ComfyUI open afterwards")
    run.add_argument("--output", type=Path, default=REPO / "output", metavar="DIR", help="default: output")
    commands.add_parser("test", help="run the tests; every further argument goes to pytest")
    drawing = commands.add_parser("pictures", help="make the pictures of the help pages anew (web/docs)")
    drawing.add_argument("names", nargs="*", metavar="NAME", help="such as tilt; default: all")
    testing = sys.argv[1:2] == ["test"]  # argparse would take pytest's own options apart
    options = parser.parse_args(["test"] if testing and sys.argv[2:] not in (["-h"], ["--help"]) else None)

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "test":
            return test(sys.argv[2:])
        if options.command == "pictures":
            return pictures(options.names)
        demo(options.output, options.serve)
    except KeyboardInterrupt:
        print()
    except (provision.ProvisionError, HostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit("dev.py needs Python 3.10 or newer.")
    if os.name == "nt":
        sys.exit("dev.py runs on Linux and macOS; on Windows use WSL. (The node pack itself runs anywhere.)")
    sys.exit(main())
