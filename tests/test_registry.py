"""What the registry of ComfyUI learns about the pack: `pyproject.toml` within its rules.

The rules are those of the registry's specification and of `comfy node validate`, whose own code is not a
dependency of the tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10 has it within pip alone
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
VERSION = r"\d+\.\d+\.\d+"
SYSTEMS = ("OS Independent", "Microsoft", "POSIX", "MacOS")
ACCELERATORS = (
    "GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "NPU :: Huawei Ascend", "GPU :: Apple Metal",
)  # fmt: skip
#: ComfyUI's own torch must stay as it is: another one may not fit the card.
NEVER = {"torch", "torchvision", "torchaudio", "xformers", "triton"}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_name_is_one_that_the_registry_takes(pyproject):
    name = pyproject["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*", name)
    assert len(name) < 100
    assert "comfyui" not in name
    assert re.fullmatch(r"[a-z0-9-]+", pyproject["tool"]["comfy"]["PublisherId"])
    assert pyproject["tool"]["comfy"]["DisplayName"] == "Fine Defocus"


def test_the_version_is_the_newest_of_the_changelog(pyproject):
    version = pyproject["project"]["version"]
    assert re.fullmatch(VERSION, version)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ \[?v?({VERSION})", changes, re.M)[1] == version


def test_it_says_where_it_runs(pyproject):
    project = pyproject["project"]
    # what the registry shows and Manager compares: lower bounds, and no upper one
    assert re.fullmatch(r">=3\.\d+", project["requires-python"])
    assert re.fullmatch(f">={VERSION}", pyproject["tool"]["comfy"]["requires-comfyui"])
    classifiers = project["classifiers"]
    systems = [c.removeprefix("Operating System :: ") for c in classifiers if c.startswith("Operating Sys")]
    assert systems
    assert all(system.startswith(SYSTEMS) for system in systems)
    cards = [c.removeprefix("Environment :: ") for c in classifiers if c.startswith("Environment ::")]
    assert set(cards) <= set(ACCELERATORS)


def test_the_licence_the_page_and_the_readme_are_there(pyproject):
    project = pyproject["project"]
    (licence,) = project["license"].values()
    assert "Apache License" in (ROOT / licence).read_text(encoding="utf-8")
    assert "License :: OSI Approved :: Apache Software License" in project["classifiers"]
    assert (ROOT / project["readme"]).is_file()
    assert 20 < len(project["description"]) < 200
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert all(url.startswith(project["urls"]["Repository"]) for url in project["urls"].values())


def test_dependencies_are_those_that_manager_installs(pyproject):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    installed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    # the registry takes a range of the front end out of this list; Manager must not install one
    declared = [
        d for d in pyproject["project"]["dependencies"] if not d.startswith("comfyui-frontend-package")
    ]
    assert sorted(declared) == sorted(installed)
    optional = [d for more in pyproject["project"].get("optional-dependencies", {}).values() for d in more]
    for requirement in [*declared, *optional]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(>=[0-9.]+)?", requirement), f"{requirement} has an upper bound"
        assert re.split(r">=", requirement)[0].lower() not in NEVER


def test_pictures_of_the_registry_are_there_when_they_are_named(pyproject):
    """Icon and banner are URLs of files of the repository; a missing one shows as a broken picture."""
    comfy = pyproject["tool"]["comfy"]
    for name in ("Icon", "Banner"):
        url = comfy.get(name, "")
        if not url:
            assert name not in comfy, f"{name} is empty: leave the line out"
            continue
        assert url.startswith("https://")
        assert (ROOT / url.partition("/main/")[2]).is_file()


def test_nothing_is_named_twice(pyproject):
    # WEB_DIRECTORY serves the scripts; [tool.comfy] web would serve and run them once more under another name
    assert "web" not in pyproject["tool"]["comfy"]
    assert pyproject["tool"]["comfy"].get("includes", []) == []
