"""Batch x size x transparency x depth size x dtype x device through both lens nodes, in ComfyUI's own Python.

The cases are those of inside_matrix.py: every three choices of three axes meet in one of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from tools import provision
from tools.provision import REPO

pytestmark = [pytest.mark.host, pytest.mark.slow]

INSIDE = Path(__file__).with_name("inside_matrix.py")
#: 5 batches, 6 sizes, 3 kinds of alpha: the three longest axes alone need so many cases, and one is 2K.
FEWEST = 5 * 6 * 3 + 1


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def answers(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    host = provision.host()
    env = {**os.environ, "PYTHONPATH": str(host.shim or "")}
    arguments = [str(host.python), str(INSIDE), str(REPO), request.param]
    ran = subprocess.run(arguments, cwd=host.checkout, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    assert answer["device"] == request.param
    return answer


@pytest.mark.parametrize("lens", ["TAF Lens", "Dr.Bokeh Lens"])
def test_whatever_is_connected_becomes_a_picture(answers, lens):
    cases = {case: wrong for case, wrong in answers["cases"].items() if case.startswith(lens)}
    assert len(cases) >= FEWEST
    assert {case: wrong for case, wrong in cases.items() if wrong} == {}


@pytest.mark.parametrize("lens", ["TAF Lens", "Dr.Bokeh Lens"])
def test_sizes_that_do_not_go_together_are_refused_with_both_numbers(answers, lens):
    refused = {case: message for case, message in answers["refused"].items() if case.startswith(lens)}
    assert len(refused) == 4
    for case, message in refused.items():
        one, other = re.findall(r"(\d+) ([a-z ]+)", case)
        assert message.startswith("ValueError: "), f"{case}: {message}"
        for count, kind in (one, other):
            assert f"{count} {kind.strip()}" in message.replace("_", " "), f"{case}: {message}"
