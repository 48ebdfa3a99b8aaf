"""What the pages that ask people share: a gradio page that talks to its own server and to nobody else."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request

#: gradio builds its parts with inline code.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self' blob:; font-src 'self' data:; "
    "worker-src 'self' blob:"
)
#: How the page's parts answer: at once, without a sign of waiting, and not as an interface for programs.
ANSWERING = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def server() -> FastAPI:
    """Takes the addresses of pictures; `mounted` gives it the page."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def policy(request: Request, call_next):
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    return app


def mounted(app: FastAPI, blocks: gr.Blocks, folder: Path) -> FastAPI:
    """The server with the page at /, in the style and with the script of `folder`: page.css and page.js."""
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=(folder / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(folder / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        ssr_mode=False,
        show_error=False,
    )


def answer(app: FastAPI, host: str, port: int) -> None:
    """Answer until the process is told to end."""
    uvicorn.run(app, host=host, port=port, log_level="warning")


def notice_html(notice: str) -> str:
    """A sentence to the person, or nothing."""
    return f'<p class="notice" role="status">{escape(notice)}</p>' if notice else ""
