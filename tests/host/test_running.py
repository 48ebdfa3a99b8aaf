"""How our nodes behave while the server runs them: caching, progress, interruption, what they say."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest

from tools.workflow import Graph

pytestmark = pytest.mark.host


def sweep(*, width=96, height=64, distance=2.0, f_numbers="2.8, 8") -> tuple[Graph, dict[str, str]]:
    """A picture of one colour through a lens: the graph, and the node ids by what the nodes are for."""
    g = Graph()
    picture = g("EmptyImage", width=width, height=height, batch_size=1, color=0x4080FF)
    grey = g("MaskToImage", mask=g("SolidMask", value=0.5, width=width, height=height))
    meaning = {"convention": "near is bright", "near_m": 1.0, "far_m": 8.0, "spacing": "inverse depth"}
    depth = g("FineDefocusDepthFromImage", image=grey, **meaning)
    focus = g("FineDefocusFocusDistance", distance_m=distance, scale=1.0)
    camera = g(
        "FineDefocusCamera", aperture="free", f_number=2.8, focal_mm=85.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    cameras = g(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers=f_numbers,
    )  # fmt: skip
    lens = g(
        "FineDefocusTAFLens", image=picture, depth=depth, focus=focus, camera=cameras, max_radius_px=512,
        depth_resampling="bilinear",
    )  # fmt: skip
    shown = g("PreviewImage", images=lens)
    return g, {"depth": depth[0], "focus": focus[0], "sweep": cameras[0], "lens": lens[0], "shown": shown[0]}


@contextmanager
def listening(comfy):
    """Everything the server says over its websocket meanwhile, as a growing list of (event, data)."""
    import websocket

    heard, ended = [], threading.Event()
    url = comfy.url.replace("http", "ws", 1) + f"/ws?clientId={comfy.client_id}"
    socket = websocket.create_connection(url, timeout=0.5, http_no_proxy=["*"])

    def listen():
        while not ended.is_set():
            try:
                message = socket.recv()
            except websocket.WebSocketTimeoutException:
                continue
            if isinstance(message, str) and message:
                event = json.loads(message)
                heard.append((event["type"], event["data"]))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
        time.sleep(0.3)
    finally:
        ended.set()
        thread.join()
        socket.close()


def cached(entry: dict) -> set[str]:
    events = entry["status"]["messages"]
    return {node for event, data in events if event == "execution_cached" for node in data["nodes"]}


def test_nothing_is_computed_twice(comfy):
    first, ids = sweep(distance=2.11)
    comfy.prompt(first)
    assert set(first) <= cached(comfy.prompt(first))

    moved, _ = sweep(distance=2.22)
    again = cached(comfy.prompt(moved))
    assert again >= {ids["depth"], ids["sweep"]}
    assert not again & {ids["focus"], ids["lens"], ids["shown"]}


def test_a_sweep_is_a_batch(comfy):
    g, ids = sweep(distance=2.33, f_numbers="1.8, f/4; 11")
    outputs = comfy.prompt(g)["outputs"]
    assert len(outputs[ids["shown"]]["images"]) == 3
    (said,) = outputs[ids["sweep"]]["text"]
    assert said == "3 × f/1.8  f/4  f/11"


def test_progress_is_told_while_the_lens_works(comfy):
    g, ids = sweep(distance=2.44, f_numbers="1.8, 2.8, 4, 5.6")
    with listening(comfy) as heard:
        comfy.prompt(g)
    steps = [data for event, data in heard if event == "progress" and data["node"] == ids["lens"]]
    assert {data["max"] for data in steps} == {1000}
    values = [data["value"] for data in steps]
    assert values == sorted(values)
    assert values[-1] == 1000
    assert len(values) >= 2  # the server passes on only some of them


def stopped_at(comfy, g: Graph, lens: str) -> int:
    """Run, interrupt as soon as the lens has told any progress, and say how far it came, of 1000."""
    with listening(comfy) as heard:
        prompt_id = comfy.queue(g)
        end = time.monotonic() + 120
        while not any(e == "progress" and d["node"] == lens and d["value"] > 0 for e, d in heard):
            assert time.monotonic() < end, "the lens did not begin"
            time.sleep(0.05)
        told = time.monotonic()
        comfy.interrupt()
        entry = comfy.wait(prompt_id, 60)
        assert time.monotonic() - told < 5  # a busy machine's second
    assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
    return max(d["value"] for e, d in heard if e == "progress" and d["node"] == lens)


def test_a_long_job_stops_when_told_to(comfy):
    many = ", ".join(f"{1 + i / 100:.2f}" for i in range(200))
    g, ids = sweep(width=1536, height=1024, distance=1.2, f_numbers=many)
    assert stopped_at(comfy, g, ids["lens"]) < 1000


def layered(photo, width: int, distance_m: float) -> tuple[Graph, str]:
    """The demo's photo, enlarged, through Dr.Bokeh Lens at two apertures; the lens's id."""
    g = Graph()
    picture = g(
        "ImageScale", image=g("LoadImage", image=photo[0]), upscale_method="bilinear", width=width,
        height=width * 500 // 741, crop="disabled",
    )  # fmt: skip
    depth = g("FineDefocusLoadDepth", file=photo[1], unit="millimetres", metres_per_unit=0.001, channel="")
    camera = g(
        "FineDefocusCamera", aperture="free", f_number=2.0, focal_mm=105.0, sensor="Full frame 36 × 24 mm",
        sensor_width_mm=36.0, sensor_height_mm=24.0, framing="crop to the picture",
    )  # fmt: skip
    cameras = g(
        "FineDefocusApertureSweep", camera=camera, sweep="list", start=1.8, end=22.0, step="1 stop",
        f_numbers="2, 4",
    )  # fmt: skip
    lens = g(
        "FineDefocusDrBokehLens", image=picture, depth=depth,
        focus=g("FineDefocusFocusDistance", distance_m=distance_m, scale=1.0), camera=cameras,
        max_radius_px=64, depth_resampling="bilinear",
    )  # fmt: skip
    g("PreviewImage", images=lens)
    return g, lens[0]


def test_finding_layers_tells_its_progress(comfy, photo):
    g, lens = layered(photo, 500, 2.31)
    with listening(comfy) as heard:
        comfy.prompt(g)
    values = [data["value"] for event, data in heard if event == "progress" and data["node"] == lens]
    assert values == sorted(values)
    assert values[-1] == 1000
    # the first of two apertures is done at 500; most of it is for the layers, in more than one step
    assert len({value for value in values if 0 < value < 350}) >= 2


def test_layers_being_found_can_be_stopped(comfy, photo):
    """A picture of 3000 px, whose layers take many seconds: not a second of them after the word."""
    g, lens = layered(photo, 3000, 2.32)
    assert stopped_at(comfy, g, lens) < 350  # in the middle of the layers of the first aperture


def test_the_server_goes_on_after_an_error(comfy):
    g, ids = sweep(distance=2.55, f_numbers="2.8, banana")
    with pytest.raises(RuntimeError, match="banana"):
        comfy.prompt(g)
    g[ids["sweep"]]["inputs"]["f_numbers"] = "2.8"
    assert comfy.prompt(g)["status"]["status_str"] == "success"
