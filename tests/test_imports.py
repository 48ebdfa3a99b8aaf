"""The house's one rule of traffic: nodes → lens_models ← training, never upwards, and no circles.

tools stands beside them: it imports none of the three and none of them imports it.

Imports inside functions count as well: late is not elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("lens_models", "nodes", "training", "tools")
#: What each package may import of the others.
ALLOWED = {"lens_models": (), "nodes": ("lens_models",), "training": ("lens_models",), "tools": ()}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of every module of the packages, a folder's `__init__` under the folder's name."""
    names = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the house that one module imports."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            # the pack imports itself by relative names, so its absolute `nodes` is ComfyUI's
            hosts = {"nodes"} if name.startswith("nodes") else set()
            yield from (alias.name for alias in node.names if alias.name in known.keys() - hosts)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found = f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source
                ours = node.level or source.split(".")[0] in ("lens_models", "training", "tools")
                if (found in known or ours) and found != name:
                    yield found


def graph(root: Path) -> dict[str, set[str]]:
    """Who imports whom."""
    known = modules(root)
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def missing(edges: dict[str, set[str]]) -> list[str]:
    """Imports of modules of ours that do not exist; pyright is not asked (pyproject.toml says why)."""
    return [
        f"{name} imports {target}"
        for name, targets in sorted(edges.items())
        for target in sorted(targets - edges.keys())
    ]


def upwards(edges: dict[str, set[str]]) -> list[str]:
    """Imports of a package that the importing one must not know."""
    return [
        f"{name} imports {target}"
        for name, targets in sorted(edges.items())
        for target in sorted(targets)
        if target.split(".")[0] not in (name.split(".")[0], *ALLOWED[name.split(".")[0]])
    ]


def circle(edges: dict[str, set[str]]) -> str | None:
    """One circle of imports in words, None where there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return None


def folders(edges: dict[str, set[str]], known: dict[str, Path]) -> dict[str, set[str]]:
    """The same between folders; a module that lies directly in a package stands for itself.

    A folder and one inside of it are one room.
    """

    def room(name: str) -> str:
        in_package = len(known[name].relative_to(REPO).parts) == 2
        return name if in_package else ".".join(name.split(".")[:2])

    between: dict[str, set[str]] = {room(name): set() for name in edges}
    for name, targets in edges.items():
        between[room(name)] |= {room(target) for target in targets} - {room(name)}
    return between


def test_nothing_is_imported_upwards():
    assert len(modules(REPO)) > 150, "the walk finds the modules"
    assert upwards(graph(REPO)) == []


def test_every_imported_module_exists():
    assert missing(graph(REPO)) == []


def test_modules_import_without_circles():
    assert circle(graph(REPO)) is None


def test_folders_import_without_circles():
    assert circle(folders(graph(REPO), modules(REPO))) is None


def test_the_core_imports_itself_by_relative_names():
    """Inside ComfyUI the pack's folder is not on the path."""
    absolute = [
        f"{path.relative_to(REPO)}:{node.lineno}"
        for package in ("lens_models", "nodes")
        for path in sorted((REPO / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == "lens_models"
    ]
    assert absolute == []


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        (
            "lens_models/camera.py",
            "from training.data import pack",
            "lens_models.camera imports training.data.pack",
        ),
        ("nodes/camera.py", "from training.data.pack import x", "nodes.camera imports training.data.pack"),
        ("training/data/pack.py", "import nodes.camera", "training.data.pack imports nodes.camera"),
        (
            "lens_models/camera.py",
            "def late():\n    from ..nodes import camera",
            "lens_models.camera imports nodes.camera",
        ),
    ],
)
def test_a_planted_import_upwards_is_found(tmp_path, file, line, found):
    for name in ("lens_models/camera", "nodes/camera", "training/data/pack"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        (path.parent / "__init__.py").write_text("")
    (tmp_path / "training" / "__init__.py").write_text("")
    assert upwards(graph(tmp_path)) == []
    (tmp_path / file).write_text(line)
    assert upwards(graph(tmp_path)) == [found]


def test_a_planted_import_of_a_missing_module_is_found(tmp_path):
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "lens_models" / "a.py").write_text("def late():\n    from .gone import x")
    assert missing(graph(tmp_path)) == ["lens_models.a imports lens_models.gone"]


def test_a_planted_circle_is_found(tmp_path):
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "lens_models" / "a.py").write_text("from . import b")
    (tmp_path / "lens_models" / "b.py").write_text("def late():\n    from .a import x")
    assert set(circle(graph(tmp_path)).split(" → ")) == {"lens_models.a", "lens_models.b"}
