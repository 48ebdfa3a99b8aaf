"""The features of defocus tools, who has them, and the tests that hold ours; the README's table of them.

    python tests/acceptance/features.py            # the table as it stands in the README, markers included
    python tests/acceptance/features.py --write    # puts it there, between the markers

The peers were read in November 2026 in the versions of then; their cells are about whether a feature is there
at all, not how good it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPO = Path(__file__).resolve().parents[2]
README = REPO / "README.md"
BEGIN = "<!-- features: made by tests/acceptance/features.py -->"
END = "<!-- end of features -->"

PEERS = {
    "P": "ProPost",
    "Z": "ZDefocus-pro",
    "W": "WtlNodes",
    "G": "Genfocus",
    "D": "Dr.Bokeh's code",
    "R": "RapidRAW",
    "LR": "Lightroom",
    "N": "Nuke, OpenDefocus",
    "S": "Sapphire",
    "B": "Blender",
}
HOST, BROWSER, ACCEPTANCE = "tests/host", "tests/browser", "tests/acceptance"
PROBE = f"{ACCEPTANCE}/test_probe.py"


@dataclass(frozen=True)
class Feature:
    """One row.

    goal: M launch, S should, L later. ours: whether we have it. peers: keys of `PEERS`, or words.
    nodes: ids without `FineDefocus`. tests: what fails when it is gone. but: what is missing of it.
    """

    name: str
    goal: Literal["M", "S", "L"]
    ours: Literal["yes", "partly", "no"]
    peers: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    but: str = ""


NOT_COMPARED = ("not compared",)
LENSES = ("TAFLens", "DrBokehLens")
FEATURES = (
    Feature(
        "focus by click", "M", "yes", ("LR", "N"), ("FocusPoint",),
        (f"{BROWSER}/test_focus_point.py::test_a_click_is_within_a_pixel",),
    ),
    Feature(
        "focus by mask", "M", "yes", ("G",), ("FocusFromMask", "FocusPoint"),
        (f"{HOST}/test_focus.py::test_masks", "tests/test_saliency.py::test_focus_from_mask"),
    ),
    Feature(
        "focus range", "S", "yes", ("P", "Z", "W", "R", "LR", "N"), ("FocusPoint",),
        (f"{HOST}/test_focus_point.py::test_a_second_point_makes_a_range_and_the_camera_its_aperture",),
    ),
    Feature(
        "automatic focus", "M", "yes", ("LR", "B: of an object", "the paper"),
        ("PredictFocus", "LoadFocusModel"),
        (
            f"{HOST}/test_focus.py::test_the_guess_lands_on_the_motorcycle",
            "tests/test_predictor.py::test_the_focus_is_equation_4_of_the_saliency",
        ),
        but="trained weights are yet to come; the guess needs none",
    ),
    Feature(
        "f-number, focal length, sensor, metres", "M", "yes", ("N", "B", "Z: relative", "G: partly"),
        ("Camera", "FocusDistance"),
        ("tests/test_camera.py::test_worked_value", "tests/test_camera.py::test_crop_of_full_frame"),
    ),
    Feature("near and far strength apart", "S", "no", ("Z", "R")),
    Feature(
        "disc, not a Gaussian", "M", "yes", ("all but P",), LENSES,
        (f"{PROBE}::test_light_becomes_a_disc_not_a_gaussian",
         "tests/test_disc.py::test_second_moment_is_that_of_a_disc_at_every_radius"),
    ),
    Feature(
        "blades, rotation, cat's eye, anamorphic, own picture", "S", "yes", ("N", "LR", "B", "Z: blades"),
        ("ApertureShape",),
        (
            "tests/test_shape.py::test_a_light_looks_like_the_polygon",
            "tests/test_shape.py::test_cats_eye_in_a_picture_points_at_the_centre",
            "tests/test_shape.py::test_squeeze_is_height_over_width",
            "tests/test_shape.py::test_picture_round_trip",
        ),
    ),
    Feature(
        "ring (mirror lens) and swirl", "L", "partly", ("R", "LR", "N"), ("ApertureShape",),
        ("tests/test_shape.py::test_ring_bubble_and_apodised_profiles",),
        but="rings; no swirl but what a cat's eye gives",
    ),
    Feature(
        "highlights, bounded and in stops", "M", "yes", ("LR", "N"), LENSES,
        ("tests/test_highlights.py::test_white_goes_up_by_the_stops_and_the_rest_stays_bit_equal",
         f"{HOST}/test_dr_bokeh_lens.py::test_lamps_open_into_discs_and_the_rest_stays"),
    ),
    Feature(
        "linear light", "M", "yes", ("N", "B: an option"), LENSES,
        (f"{PROBE}::test_light_keeps_its_energy",),
    ),
    Feature(
        "occlusion: a blurred foreground over what is sharp", "M", "yes", ("N", "R", "LR", "D"),
        ("DrBokehLens",),
        (f"{PROBE}::test_foreground_spreads_over_the_sharp_wall",
         f"{PROBE}::test_background_takes_no_colour_from_the_subject"),
        but="TAF Lens does not, by its definition",
    ),
    Feature(
        "fill behind the foreground", "M", "yes", ("G: generated", "D: inpainted"), ("DrBokehLens",),
        (f"{HOST}/test_dr_bokeh_lens.py::test_a_near_square_melts_over_the_sharp_wall",
         "tests/test_dr_bokeh.py::test_push_pull_keeps_what_is_known_and_fills_smoothly"),
        but="smooth; connect a clean plate for more",
    ),
    Feature(
        "alpha and subject matte", "S", "yes", ("N",), LENSES,
        (f"{HOST}/test_bad_input.py::test_transparency_is_kept_and_blurred",
         "tests/test_dr_bokeh.py::test_a_subject_mask_is_its_matte"),
    ),
    Feature(
        "guided depth upsampling", "S", "partly", ("R",), ("EstimateDepth",),
        ("tests/test_metric3d_preprocess.py::test_guided_with_kornia",
         "tests/test_dr_bokeh.py::test_soft_depth_edges_become_hard_along_the_picture"),
        but="in Estimate Depth alone; Dr.Bokeh Lens sharpens soft edges of any depth",
    ),
    Feature("depth brush", "L", "no", ("LR",)),
    Feature(
        "depth says what it is (near bright, near dark, metres)", "M", "yes", ("N", "S", "B"),
        ("DepthFromImage", "DepthFromGeometry", "LoadDepth"),
        ("tests/test_depth_convert.py::test_bright_and_dark_are_mirror_images",
         f"{ACCEPTANCE}/test_pains.py::test_focus_direction_is_decided_in_one_place"),
    ),
    Feature(
        "what is in focus, and circle of confusion, shown", "M", "yes", ("Z", "LR", "N"),
        ("FocusOverlay", *LENSES),
        ("tests/test_overlay.py::test_the_zone_is_outlined_outside_itself",
         f"{HOST}/test_focus.py::test_the_overlay_says_the_limits"),
    ),
    Feature(
        "live preview in the browser", "M", "yes", ("none; W blocks the queue",), ("FocusPoint",),
        (f"{BROWSER}/test_focus_point_preview.py::test_the_preview_gathers_like_the_taf_lens",
         f"{BROWSER}/test_focus_point_preview.py::test_the_foreground_spreads_as_in_dr_bokeh_lens"),
    ),
    Feature(
        "N pictures, one depth, and the other way", "M", "yes", ("N", "B"), LENSES,
        (f"{PROBE}::test_four_pictures_share_a_depth", f"{PROBE}::test_one_picture_many_cameras",
         f"{ACCEPTANCE}/test_matrix.py::test_what_does_not_go_together_is_told_with_both_numbers"),
    ),
    Feature(
        "rack focus", "S", "yes", ("N", "B"), ("RackFocus",),
        (f"{HOST}/test_focus.py::test_a_rack_begins_and_ends_where_its_keyframes_are",
         "tests/test_steady.py::test_a_rack_does_not_pop"),
    ),
    Feature(
        "aperture sweep with labels", "M", "yes", ("the paper's figures",), ("ApertureSweep", "ContactSheet"),
        (f"{HOST}/test_examples.py::test_the_sheet_holds_the_eight_in_order",
         f"{PROBE}::test_a_sweep_loses_energy_with_every_stop"),
    ),
    Feature(
        "pictures × distances × apertures as one labelled batch", "S", "yes", NOT_COMPARED,
        ("BatchSweep", "FocusSweep", "ContactSheet", "SavePhoto"),
        (f"{HOST}/test_batch_sweep.py::test_every_item_is_the_picture_with_its_settings",
         f"{HOST}/test_batch_sweep.py::test_the_sheet_has_apertures_across_and_distances_down",
         f"{HOST}/test_batch_sweep.py::test_files_are_named_after_their_items",
         f"{HOST}/test_batch_sweep.py::test_what_is_held_beside_the_result_does_not_grow_with_the_batch"),
    ),
    Feature(
        "EXIF read, and written with the workflow kept", "S", "yes", ("R", "LR"),
        ("CameraFromPhoto", "SavePhoto"),
        (f"{HOST}/test_photo_nodes.py::test_what_is_saved_comes_back_as_the_same_camera",
         f"{BROWSER}/test_save_photo.py::test_a_dropped_file_restores_the_graph",
         f"{ACCEPTANCE}/test_round_trip.py::test_a_shared_file_is_the_whole_recipe"),
    ),
    Feature(
        "Blur Monotonicity, Content Consistency, LPIPS", "M", "yes", ("the paper",),
        ("BlurMonotonicity", "ContentConsistency", "LPIPS"),
        (f"{HOST}/test_evaluate_nodes.py::test_the_packs_lenses_pass_on_a_real_photo",
         "tests/test_metrics_lpips.py::test_equals_the_lpips_package"),
    ),
    Feature(
        "training code", "M", "yes", ("the paper: not published",), (),
        ("tests/training/test_runner.py::test_what_a_run_leaves",
         "tests/training/test_stages.py::test_the_gradient_goes_through_lens_depth_and_autoencoder"),
        but="run at toy size only",
    ),
    Feature(
        "tilted plane of focus", "S", "yes", NOT_COMPARED, (*LENSES, "FocusOverlay"),
        (f"{HOST}/test_tilt.py::test_a_slope_is_sharp_all_over",
         "tests/optics/test_tilt_against_truth.py::test_a_wall_through_a_lens_that_is_really_tilted"),
    ),
    Feature("barn doors, astigmatism, coloured fringes", "L", "no", ("N",)),
    Feature(
        "4K picture on 8 GB", "S", "partly", NOT_COMPARED, LENSES, (f"{PROBE}::test_4k_fits",),
        but="on the CPU; no GPU was measured",
    ),
    Feature(
        "help, tooltips, templates, blueprints, tests", "M", "yes", ("some partly",), (),
        ("tests/acceptance/test_features.py::test_every_node_has_a_help_page",
         f"{HOST}/test_blueprints.py::test_all_that_is_inside_exists",
         f"{HOST}/test_examples.py::test_an_example_runs"),
    ),
    Feature(
        "other languages", "L", "yes", ("LR", "N"), (),
        (f"{HOST}/test_pack.py::test_translations_are_served_and_name_what_there_is",),
        but="Japanese and Chinese for every node; German too, once ComfyUI offers it",
    ),
)  # fmt: skip


def table() -> str:
    """The README's part about features, with its markers."""
    names = ", ".join(f"{key} {name}" for key, name in PEERS.items())
    rows = [
        BEGIN,
        "| feature | who else has it | here | held by |",
        "|---|---|---|---|",
        *(_row(feature) for feature in FEATURES),
        "",
        f"{names}.",
        END,
    ]
    return "\n".join(rows)


def _row(feature: Feature) -> str:
    said = f"{feature.ours}; {feature.but}" if feature.but else feature.ours
    held = ", ".join(_link(test_id, i) for i, test_id in enumerate(feature.tests, 1))
    return f"| {feature.name} | {', '.join(feature.peers) or 'none'} | {said} | {held or '–'} |"


def _link(test_id: str, number: int) -> str:
    file, name = test_id.split("::", 1)
    return f'[{number}]({file} "{name}")'


def in_readme(text: str) -> str | None:
    """What stands in the README between the markers, markers included; None without them."""
    if BEGIN not in text or END not in text:
        return None
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        text = README.read_text(encoding="utf-8")
        there = in_readme(text)
        if there is None:
            sys.exit(
                f"{README.name} has no line {BEGIN} followed by {END}: put them where the table belongs."
            )
        README.write_text(text.replace(there, table()), encoding="utf-8")
    else:
        print(table())
