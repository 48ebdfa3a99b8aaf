"""What every test shares: one real ComfyUI, started when asked for, and the pack kept out of pytest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tools import provision
from tools.server import connect

REPO = Path(__file__).resolve().parents[1]

# a shared machine stalls now and then: correctness is tested here, time is measured in benchmarks/
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class KeepOut:
    """The repository's root is a ComfyUI pack, so its `__init__.py` is for ComfyUI alone.

    pytest would import it as the package that holds the tests. The hook must come from a plugin: one in a
    conftest.py is not asked about the folders above it.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent):
        return pytest.Dir.from_parent(parent, path=path) if path == REPO else None


def pytest_configure(config):
    import torch

    # pytest and ComfyUI share the cores; threads that wait for each other by spinning would starve both
    torch.set_num_threads(1)
    config.pluginmanager.register(KeepOut())


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files, not compare")


@pytest.fixture(scope="session")
def comfy():
    """A real ComfyUI with this pack in it; started by the first test that asks, one for the whole session."""
    try:
        with connect(provision.host) as server:
            yield server
    except provision.ProvisionError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def photo(comfy, tmp_path_factory):
    """The demo's photo and its depth in ComfyUI's input folder."""
    from tools import motorcycle

    return [comfy.upload(file) for file in motorcycle.write(tmp_path_factory.mktemp("photo"))]


@pytest.fixture(scope="session")
def scenes(comfy, tmp_path_factory):
    """The synthetic pictures of the templates in ComfyUI's input folder."""
    from tools import synthetic_scenes

    return [comfy.upload(file) for file in synthetic_scenes.write(tmp_path_factory.mktemp("scenes"))]
