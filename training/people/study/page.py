"""The page that asks, made with gradio; the only module of the study that needs it."""

from __future__ import annotations

import json
import os
import secrets
from html import escape
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse

from .manifest import is_video
from .store import Question, Store, VoteError, participant_code

#: The page talks to its own server and to nobody else; gradio builds its parts with inline code.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:"
)
#: How the page's parts answer: at once, without a sign of waiting, and not as an interface for programs.
_EVENT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def serve(store: Store, host: str, port: int) -> None:
    """Answer until the process ends."""
    uvicorn.run(application(store), host=host, port=port, log_level="warning")


def application(store: Store) -> FastAPI:
    """The page at /, and the files of each question under addresses that do not tell the method."""
    app, folder = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Path(__file__).parent

    @app.middleware("http")
    async def policy(request: Request, call_next):
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    @app.get("/media/{code}/{number}/{side}")
    def media(code: str, number: int, side: str) -> FileResponse:
        question = store.question(code, number)
        if question is None or side not in ("left", "right"):
            raise HTTPException(404)
        method = question.method(side, store.manifest.ours)
        file = store.manifest.prompt(question.prompt).media[method]
        return FileResponse(file, headers={"Cache-Control": "private, max-age=3600"})

    return gr.mount_gradio_app(
        app,
        _blocks(store),
        path="/",
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=(folder / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(folder / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        ssr_mode=False,
        show_error=False,
    )


def _blocks(store: Store) -> gr.Blocks:
    with gr.Blocks(title="Picture study", analytics_enabled=False) as blocks:
        content = gr.HTML(elem_classes="study", padding=False)
        with gr.Row(visible=False, elem_id="votes") as votes:
            left = gr.Button("Left  (key 1)", elem_id="vote-left")
            right = gr.Button("Right  (key 2)", elem_id="vote-right")
        with gr.Column(visible=False, elem_id="welcome") as welcome:
            code = gr.Textbox(label="Participant code (leave empty to get one)", max_length=32)
            begin = gr.Button("Begin", elem_id="begin")
        answer = gr.Textbox(visible=False)
        outputs = [content, votes, welcome]

        def state(participant: str, notice: str = "") -> tuple:
            question = store.question(participant) if participant else None
            ended = not question and bool(participant) and store.question(participant, 1) is not None
            if question:
                html = _question_html(question, store, notice)
            else:
                html = _end_html(participant, notice) if ended else _welcome_html(store, notice)
            return html, gr.update(visible=bool(question)), gr.update(visible=not question and not ended)

        def join(text: str) -> tuple:
            text = text.strip() or "".join(secrets.choice(_LETTERS) for _ in range(8))
            try:
                return state(store.join(text))
            except VoteError as error:
                return state("", str(error))

        def resume(text: str) -> tuple:
            return join(text) if text.strip() else state("")

        def vote(side: str, text: str) -> tuple:
            try:
                read = json.loads(text)
                participant, number = participant_code(read["participant"]), int(read["number"])
                seconds = float(read["seconds"])
            except (ValueError, KeyError, TypeError):
                return gr.skip(), gr.skip(), gr.skip()
            try:
                store.vote(participant, number, side, seconds)
            except VoteError as error:
                return state(participant, str(error))
            return state(participant)

        blocks.load(resume, answer, outputs, js="() => [window.study.participant()]", **_EVENT)
        gr.on([begin.click, code.submit], join, code, outputs, **_EVENT)
        for button, side in ((left, "left"), (right, "right")):
            button.click(
                lambda text, side=side: vote(side, text),
                answer,
                outputs,
                js="() => [window.study.answer()]",
                **_EVENT,
            )
    return blocks


def _notice_html(notice: str) -> str:
    """A sentence to the participant, or nothing."""
    return f'<p class="notice" role="status">{escape(notice)}</p>' if notice else ""


def _question_html(question: Question, store: Store, notice: str) -> str:
    prompt = store.manifest.prompt(question.prompt)
    sides = "".join(
        _side_html(f"media/{question.participant}/{question.number}/{side}", side, prompt.media)
        for side in ("left", "right")
    )
    done = 100 * (question.number - 1) / question.total
    return (
        f'<div class="pair" data-participant="{question.participant}" data-number="{question.number}">'
        f'<div class="progress"><span>Question {question.number} of {question.total}</span>'
        f'<span class="bar"><i style="width: {done:.1f}%"></i></span>'
        f"<span>your code: {escape(question.participant)}</span></div>"
        f'<p class="question">{escape(store.manifest.question)}</p>'
        f'<p class="prompt">“{escape(prompt.text)}”</p>{_notice_html(notice)}'
        f'<div class="sides">{sides}</div></div>'
    )


def _side_html(address: str, side: str, media: dict[str, Path]) -> str:
    if any(is_video(file) for file in media.values()):
        return f'<video data-address="{address}" aria-label="{side}" muted playsinline></video>'
    return f'<img data-address="{address}" alt="{side}">'


def _welcome_html(store: Store, notice: str) -> str:
    count = min(store.count, len(store.manifest.pairs))
    return (
        "<h1>Two versions of one picture</h1>"
        f"<p>You will see {count} pairs side by side, and one question about each of them:</p>"
        f"<p><em>{escape(store.manifest.question)}</em></p>"
        "<p>Choose with the buttons below the pair, or with the keys 1 (left) and 2 (right). "
        "A vote cannot be changed. You may stop at any time and go on later with your participant code.</p>"
        f"{_notice_html(notice)}"
    )


def _end_html(participant: str, notice: str) -> str:
    return (
        f"<h1>Thank you, that was the last question</h1>{_notice_html(notice)}"
        f"<p>All your votes are stored under the code {escape(participant)}. You may close this page.</p>"
    )
