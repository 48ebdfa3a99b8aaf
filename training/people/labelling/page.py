"""The page that asks, made with gradio; the only module here that needs it."""

from __future__ import annotations

import io
import json
from html import escape
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from PIL import Image, ImageOps

from .. import pages
from .store import SKIPPED, Asked, LabelError, Labels, annotator_name

#: Long side of the photo on the page, and side of what the loupe shows at 1:1, px.
_SHOWN_PX, _LOUPE_PX = 1600, 440
#: Label, button, key.
BUTTONS = (
    ("none", "Sharp all over", "1"),
    ("desirable", "Blur that is wanted", "2"),
    ("undesirable", "Blur that spoils it", "3"),
    (SKIPPED, "Skip", "0"),
)


def serve(labels: Labels, host: str, port: int) -> None:
    """Answer until the process is told to end."""
    pages.answer(application(labels), host, port)


def application(labels: Labels) -> FastAPI:
    """The page at /, the photos under their numbers, and what the loupe shows of them."""
    app = pages.server()

    @app.get("/photo/{number}")
    def photo(number: int) -> Response:
        picture = _opened(labels, number)
        picture.thumbnail((_SHOWN_PX, _SHOWN_PX))
        return _jpeg(picture)

    @app.get("/loupe/{number}/{x}/{y}")
    def loupe(number: int, x: float, y: float) -> Response:
        picture = _opened(labels, number)
        left, top = (
            round(min(max(at * side - _LOUPE_PX / 2, 0), max(0, side - _LOUPE_PX)))
            for at, side in ((x, picture.width), (y, picture.height))
        )
        return _jpeg(picture.crop((left, top, left + _LOUPE_PX, top + _LOUPE_PX)))

    return pages.mounted(app, _blocks(labels), Path(__file__).parent)


def _opened(labels: Labels, number: int) -> Image.Image:
    path = labels.photo(number)
    if path is None:
        raise HTTPException(404)
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise HTTPException(422, f"{path.name} cannot be read as a picture: {error}") from error


def _jpeg(picture: Image.Image) -> Response:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95, subsampling=0)  # blur is what is judged: none of the file's own
    return Response(
        out.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
    )


def _blocks(labels: Labels) -> gr.Blocks:
    with gr.Blocks(title="Which blur", analytics_enabled=False) as blocks:
        content = gr.HTML(elem_classes="labelling", padding=False)
        with gr.Row(visible=False, elem_id="answers") as answers:
            buttons = [
                (gr.Button(f"{text} · {key}", elem_id=f"label-{label}"), label)
                for label, text, key in BUTTONS
            ]
            undo = gr.Button("Undo · Z", elem_id="undo")
        with gr.Column(visible=False, elem_id="welcome") as welcome:
            name = gr.Textbox(label="Your name", max_length=32)
            begin = gr.Button("Begin", elem_id="begin")
        seen = gr.Textbox(visible=False)
        shown = [content, answers, welcome]

        def state(annotator: str, notice: str = "", asked: Asked | None = None) -> tuple:
            asked = asked or (labels.next(annotator) if annotator else None)
            html = _asked_html(asked, notice) if asked else _text_html(annotator, notice)
            return html, gr.update(visible=bool(annotator)), gr.update(visible=not annotator)

        def join(text: str) -> tuple:
            try:
                return state(annotator_name(text))
            except LabelError as error:
                return state("", str(error) if text.strip() else "")

        def give(label: str, text: str) -> tuple:
            told = _told(text)
            if told is None:
                return gr.skip(), gr.skip(), gr.skip()
            try:
                labels.give(*told, label)
            except LabelError as error:
                return state(told[0], str(error))
            return state(told[0])

        def take_back(text: str) -> tuple:
            told = _told(text)
            if told is None:
                return gr.skip(), gr.skip(), gr.skip()
            asked = labels.undo(told[0])
            return state(told[0], "" if asked else "There is nothing to take back.", asked)

        blocks.load(join, seen, shown, js="() => [window.labelling.annotator()]", **pages.ANSWERING)
        gr.on([begin.click, name.submit], join, name, shown, **pages.ANSWERING)
        told = "() => [window.labelling.told()]"
        for button, label in buttons:
            button.click(lambda text, label=label: give(label, text), seen, shown, js=told, **pages.ANSWERING)
        undo.click(take_back, seen, shown, js=told, **pages.ANSWERING)
    return blocks


def _told(text: str) -> tuple[str, int] | None:
    """Annotator and number of the photo that the page showed."""
    try:
        read = json.loads(text)
        return annotator_name(read["annotator"]), int(read["number"])
    except (ValueError, KeyError, TypeError):
        return None


def _asked_html(asked: Asked, notice: str) -> str:
    return (
        f'<div class="asked" data-annotator="{asked.annotator}" data-number="{asked.number}">'
        f'<div class="progress"><span>{asked.done} labelled</span>'
        f'<span class="bar"><i style="width: {100 * asked.done / asked.total:.1f}%"></i></span>'
        f"<span>{escape(asked.annotator)}</span></div>{pages.notice_html(notice)}"
        '<div class="views"><img class="photo" alt="the photo">'
        '<img class="loupe" alt="a part of it at 1:1"></div>'
        "<p>Click into the photo to look at that place at 1:1. The keys are on the buttons.</p></div>"
    )


def _text_html(annotator: str, notice: str) -> str:
    if annotator:
        return (
            f'<div class="asked" data-annotator="{annotator}" data-number="0">'
            f"<h1>No photo is left for you</h1>{pages.notice_html(notice)}"
            "<p>All labels are stored. You may close this page, or undo the last one.</p></div>"
        )
    return (
        "<h1>Which blur does the photo have?</h1>"
        "<p><em>Sharp all over</em>: what there is to see is sharp, front to back.</p>"
        "<p><em>Blur that is wanted</em>: the subject is sharp, what is before or behind it not.</p>"
        "<p><em>Blur that spoils it</em>: the camera shook, the focus missed, or everything is soft.</p>"
        "<p>Skip what you cannot tell. You may stop at any time and go on later under the same name.</p>"
        f"{pages.notice_html(notice)}"
    )
