"""What users of other defocus packs suffer, most frequent first, and the tests that it cannot happen here.

`PROOF` says for each pain which tests are about it. Those without a better place are below, named by their
pain. GPUs are met by test_matrix.py alone, where the machine has one; the README's VRAM figures are computed.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from acceptance.named import REPO, defined_in, missing

from lens_models import Camera, Focus, coc_px, dr_bokeh_lens, taf_lens

HERE = "tests/acceptance/test_pains.py"
PROBE = "tests/acceptance/test_probe.py"
MATRIX = "tests/acceptance/test_matrix.py"
BROWSER, HOST = "tests/browser", "tests/host"

PROOF: dict[str, tuple[str, ...]] = {
    "1 focus direction": (
        f"{HERE}::test_focus_direction_is_decided_in_one_place",
        "tests/test_depth_convert.py::test_bright_and_dark_are_mirror_images",
        "tests/test_depth_convert.py::test_warnings_name_what_is_odd",
        f"{HOST}/test_bad_input.py::test_a_picture_on_the_depth_socket_is_refused_before_it_runs",
        "tests/web/model.test.mjs::what is said about one point",
        "tests/web/words.test.mjs::both, and the sky",
        "tests/test_overlay.py::test_near_is_warm_far_is_cool_and_the_zone_keeps_its_colours",
    ),
    "2 picking the focus": (
        f"{BROWSER}/test_focus_point.py::test_a_click_is_within_a_pixel",
        f"{HOST}/test_focus_point.py::test_the_lens_is_sharp_where_the_point_is",
        f"{HOST}/test_focus_point.py::test_a_second_point_makes_a_range_and_the_camera_its_aperture",
        f"{HOST}/test_focus.py::test_masks",
        f"{HOST}/test_focus.py::test_the_guess_lands_on_the_motorcycle",
        f"{HOST}/test_bad_input.py::test_focus_as_a_plain_number",
    ),
    "3 halos and hard foregrounds": (
        f"{PROBE}::test_background_takes_no_colour_from_the_subject",
        f"{PROBE}::test_foreground_spreads_over_the_sharp_wall",
        f"{PROBE}::test_rim_kept",
        f"{HOST}/test_dr_bokeh_lens.py::test_a_near_square_melts_over_the_sharp_wall",
        "tests/test_dr_bokeh.py::test_layers_are_the_picture_at_zero_aperture",
    ),
    "4 highlights": (
        f"{HERE}::test_highlights_stay_where_they_are",
        f"{PROBE}::test_light_keeps_its_energy",
        f"{PROBE}::test_light_becomes_a_disc_not_a_gaussian",
        "tests/test_highlights.py::test_white_goes_up_by_the_stops_and_the_rest_stays_bit_equal",
        "tests/test_highlights.py::test_a_clipped_lamp_is_nearer_to_the_true_one",
        f"{HOST}/test_dr_bokeh_lens.py::test_lamps_open_into_discs_and_the_rest_stays",
    ),
    "5 batches": (
        f"{HERE}::test_batches_no_assert_speaks_to_a_user",
        f"{MATRIX}::test_whatever_is_connected_becomes_a_picture",
        f"{MATRIX}::test_what_does_not_go_together_is_told_with_both_numbers",
        f"{HOST}/test_bad_input.py::test_batches_that_go_together",
    ),
    "6 devices": (
        f"{HERE}::test_devices_are_the_hosts_choice",
        f"{MATRIX}::test_whatever_is_connected_becomes_a_picture",
    ),
    "7 downloads and offline": (
        f"{HERE}::test_downloads_only_in_a_loader",
        "tests/test_depth_catalog.py::test_what_is_on_this_machine",
        "tests/test_depth_catalog.py::test_offline",
        f"{HOST}/test_estimate_depth.py::test_a_download_without_a_network",
        f"{HOST}/test_estimate_depth.py::test_a_file_that_was_put_there_since",
        f"{HOST}/test_generate.py::test_no_file_in_the_server",
        f"{HOST}/test_focus.py::test_no_model_in_the_folder_is_a_sentence",
    ),
    "8 dependency conflicts": (
        f"{HERE}::test_dependencies_have_no_upper_pin",
        f"{HOST}/test_pack.py::test_loading_the_pack_imports_nothing_heavy",
        "tests/test_hugging_face_depth.py::test_without_transformers",
        "tests/test_depth_files.py::test_exr_without_the_library",
        "tests/test_generator.py::test_diffusers_is_imported_late_and_its_absence_is_a_sentence",
        "tests/test_blur.py::test_without_numba_the_stack_runs",
        f"{HOST}/test_estimate_depth.py::test_without_kornia",
    ),
    "9 frontend updates": (
        f"{BROWSER}/test_focus_point.py::test_a_click_is_within_a_pixel",
        f"{BROWSER}/test_focus_point_life.py::test_the_renderer_is_changed_under_it_and_a_subgraph_made_of_it",
        f"{BROWSER}/test_focus_point_life.py::test_without_webgl2_and_with_files_that_are_gone",
        f"{BROWSER}/test_workflow.py::test_an_example_opens_whole",
    ),
    "10 state lost": (
        f"{BROWSER}/test_focus_point.py::test_the_point_outlives_undo_saving_and_loading",
        f"{BROWSER}/test_focus_point_graph.py::test_tabs_copies_bypass_and_subgraphs",
        f"{HOST}/test_focus_point.py::test_a_cached_run_tells_the_browser_again",
    ),
    "11 memory": (
        f"{PROBE}::test_4k_fits",
        "tests/test_blur.py::test_tiles_leave_no_seam",
    ),
    "12 sharing": (
        "tests/acceptance/test_round_trip.py::test_a_shared_file_is_the_whole_recipe",
        f"{BROWSER}/test_save_photo.py::test_a_dropped_file_restores_the_graph",
        f"{HOST}/test_photo_nodes.py::test_what_is_saved_comes_back_as_the_same_camera",
        f"{HOST}/test_photo_nodes.py::test_the_texts_of_a_png_and_a_webp_are_cores_own",
        f"{HOST}/test_photo_nodes.py::test_a_sweep_is_one_file_each_with_its_own_values",
    ),
    "13 banding": (
        f"{HERE}::test_banding_no_step_in_a_smooth_ramp",
        f"{HERE}::test_banding_blur_grows_without_a_step",
        "tests/test_focus_point.py::test_packed_depth_keeps_sixteen_bits_and_the_sky",
    ),
}


@pytest.mark.parametrize("pain", PROOF)
def test_every_pain_has_its_tests(pain):
    assert PROOF[pain]
    assert missing(PROOF[pain]) == []


def test_no_test_here_is_forgotten():
    about_the_table = ("test_every_", "test_no_")
    mine = {f"{HERE}::{n}" for n in defined_in(REPO / HERE) if not n.startswith(about_the_table)}
    assert mine == {test_id for tests in PROOF.values() for test_id in tests if test_id.startswith(HERE)}
    assert len(PROOF) == 13


def test_no_name_is_believed_unseen():
    """What `missing` looks at are definitions: neither a helper, nor a word, nor another file's test."""
    wrong = [f"{HERE}::no_such", f"{HERE}::sources", f"{HERE}::test_masks", "tests/none.py::test_masks"]
    assert missing(wrong) == wrong
    assert missing(["tests/web/words.test.mjs::metre"]) == ["tests/web/words.test.mjs::metre"]


def sources(*folders: str) -> list[tuple[Path, ast.Module]]:
    files = [file for folder in folders for file in sorted((REPO / folder).rglob("*.py"))]
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imported(tree: ast.Module) -> set[str]:
    """Full names of the modules a file imports from outside the pack."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


# ------------------------------------------------------------------------------------ 1 focus direction
def test_focus_direction_is_decided_in_one_place():
    """A lens gets metres. What a grey means is asked by Depth from Image alone, and there is no default way
    around it: no other node has an input that says near or far, bright or dark, or turns depth over."""
    turning = re.compile(r"convention|invert|reverse|flip|disparity|near_is|is_near")
    asked = set()
    for file, tree in sources("nodes"):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            if dotted(call.func).endswith(".Input") and isinstance(name, str) and turning.search(name):
                asked.add((file.name, name))
    assert asked == {("given.py", "convention")}


# ------------------------------------------------------------------------------------------ 4 highlights
@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
@pytest.mark.parametrize("f_number", [0.7, 1.0, 1.4, 2.8, 8.0])
def test_highlights_stay_where_they_are(lens, f_number):
    """A kernel that is half a pixel off its centre moves small lights. Odd and even sizes, 8 px and less."""
    for height, width in ((65, 65), (64, 66)):
        picture = torch.zeros(1, 3, height, width)
        picture[:, :, 31, 33] = 1.0
        depth = torch.full((1, height, width), 9.0)
        focus, camera = Focus(1.5), Camera(f_number, 85.0)
        assert 0.2 < coc_px(depth, focus, camera, width).max() / 2 < 8
        light = lens(picture, depth, focus, camera)[0, 0].double()
        rows, columns = light.sum(1), light.sum(0)
        centre = [(part * torch.arange(len(part))).sum() / part.sum() for part in (rows, columns)]
        assert centre == pytest.approx([31.0, 33.0], abs=1e-4)  # px; rounding of float32 reaches 1e-6
        assert light.sum().item() == pytest.approx(1.0, rel=1e-5)


# --------------------------------------------------------------------------------------------- 5 batches
def test_batches_no_assert_speaks_to_a_user():
    """A user's mistake is a sentence of an error: no assert, whose words are code, and nothing with -O."""
    found = [
        f"{file.name}:{node.lineno}"
        for file, tree in sources("nodes", "lens_models")
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


# --------------------------------------------------------------------------------------------- 6 devices
def test_devices_are_the_hosts_choice():
    """Nothing asks whether there is a GPU, and nothing sends to one by name: ComfyUI says where to work."""
    asking = re.compile(r"^torch\.(cuda|mps|xpu)\.(is_available|device_count|set_device|current_device)$")
    found = []
    for file, tree in sources("nodes", "lens_models"):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = dotted(call.func)
            sent = name.split(".")[-1] in ("to", "device", "cuda") or any(
                k.arg == "device" for k in call.keywords
            )
            words = [
                a.value
                for a in [*call.args, *(k.value for k in call.keywords)]
                if isinstance(a, ast.Constant)
            ]
            named = any(isinstance(w, str) and w.split(":")[0] in ("cuda", "mps", "xpu") for w in words)
            if asking.match(name) or name.endswith(".cuda") or (sent and named):
                found.append(f"{file.name}:{call.lineno}: {ast.unparse(call)}")
    assert found == []
    deciding = [file.name for file, tree in sources("nodes") if "get_torch_device" in ast.unparse(tree)]
    assert {"render.py", "load_model.py", "predict.py"} <= set(deciding)


# --------------------------------------------------------------------------- 7 downloads and offline use
def test_downloads_only_in_a_loader():
    """One file speaks to the network, one node calls it, and libraries are told to stay on this machine."""
    network = ("urllib.request", "http.client", "requests", "httpx", "aiohttp", "huggingface_hub", "socket")
    speaking, calling, local = set(), set(), []
    for file, tree in sources("nodes", "lens_models"):
        if any(name == n or name.startswith(f"{n}.") for name in imported(tree) for n in network):
            speaking.add(file.name)
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = dotted(call.func).split(".")[-1] or getattr(call.func, "attr", "")
            if name in ("download", "hf_hub_download", "snapshot_download", "load_state_dict_from_url"):
                calling.add(file.name)
            if name == "from_pretrained":
                local += [k.value.value for k in call.keywords if k.arg == "local_files_only"] or [False]
    assert speaking == {"catalog.py"}
    assert calling == {"load_model.py"}
    assert local
    assert all(value is True for value in local)


# --------------------------------------------------------------------------------- 8 dependency conflicts
def test_dependencies_have_no_upper_pin():
    """What installing the pack installs: no version that could clash with another pack's, never torch."""
    required = [line.strip() for line in (REPO / "requirements.txt").read_text().splitlines()]
    required = [line for line in required if line and not line.startswith("#")]
    declared = re.search(r"^dependencies = \[(.*?)\]", (REPO / "pyproject.toml").read_text(), re.M | re.S)[1]
    assert sorted(re.findall(r'"([^"]+)"', declared)) == sorted(required)
    for line in required:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(>=[0-9.]+)?", line), f"{line} holds other packs back"
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in required}
    assert not names & {
        "torch",
        "torchvision",
        "xformers",
        "opencv-python",
        "diffusers",
        "transformers",
        "kornia",
    }


# -------------------------------------------------------------------------------------------- 13 banding
SLOPE = 1.0 / torch.linspace(1 / 2.0, 1 / 8.0, 512)
FOCUS, WIDE_OPEN = Focus(2.0), Camera(1.4, 85.0)


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
def test_banding_no_step_in_a_smooth_ramp(lens):
    """A faint ramp of light on a slanted wall, out of focus from 0 to 14 px: no 8-bit step anywhere.

    512 columns over a fifth of the range are 51 steps of 8 bits; here every column has a value of its own.
    """
    ramp = torch.linspace(0.2, 0.4, 512).expand(1, 3, 96, 512)
    row = lens(ramp, SLOPE.expand(1, 96, 512), FOCUS, WIDE_OPEN)[0, 0, 48, 40:-40].double()
    steps = row.diff() / (0.2 / 511)
    # a ramp stays what it is under any symmetric disc; measured 4e-4 and 6e-3, layers being cut and joined
    assert (steps - 1).abs().max() < 0.02


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
def test_banding_blur_grows_without_a_step(lens):
    """Stripes along the same wall lose contrast column by column. Depth in 24 or 256 levels would stand still
    for some columns and jump at the next."""
    wave = torch.cos(
        2 * torch.pi * torch.arange(128) / 32
    )  # wide enough for discs of 14 px to leave contrast
    stripes = (0.5 + 0.4 * wave)[None, None, :, None].expand(1, 3, 128, 512)
    radius = coc_px(SLOPE.expand(1, 1, 512), FOCUS, WIDE_OPEN, 512) / 2
    assert radius.min() < 0.1
    assert 13 < radius.max() < 15
    out = lens(stripes, SLOPE.expand(1, 128, 512), FOCUS, WIDE_OPEN)[0, 0, 32:96, 20:-20].double()
    contrast = (out * wave[32:96, None]).sum(0) / 32 / 0.4
    lost = -contrast.diff()
    assert contrast[0] > 0.99
    assert contrast[-1] < 0.35
    # measured 1.6e-4 to 2.2e-3 per column; 256 levels of depth give 0 to 1.1e-2
    assert lost.min() > 5e-5
    assert lost.max() < 4e-3
