"""Serves the page of ``mcpipe demo`` on this machine."""

import argparse
import os
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from mcpipe.bench.portraits import portraits
from mcpipe.cli.demo.drawing import DemoModels, Studio
from mcpipe.cli.demo.request import MOST_BYTES, adapters_in
from mcpipe.cli.settings import located, read_content, section, settings_file
from mcpipe.core.params import Params, check_params, section_content
from mcpipe.models.faces import InsightFaces
from mcpipe.models.images import is_image
from mcpipe.steps.generate import GenerateParams
from mcpipe.steps.pairs import PairsParams
from mcpipe.steps.settings import SECTIONS

LOCAL = "127.0.0.1"
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss:; frame-ancestors 'self'"
)
"""Lets a browser load nothing from another host, whatever Gradio's page names."""

Scope = MutableMapping[str, Any]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Callable[[], Awaitable[Scope]], Send], Awaitable[None]]
"""An application by the protocol ASGI."""


class ImageSize(Params):
    """Side of an image in pixels, from the section ``samples``."""

    image_size: int = Field(ge=16)


class Shift(Params):
    """Shift of the noise levels of the base generator, from the section ``flow``."""

    shift: float = Field(gt=0)


class DemoSettings(Params):
    """The sections of params.yaml that the page reads."""

    generate: GenerateParams
    pairs: PairsParams
    samples: ImageSize
    flow: Shift


def command(options: argparse.Namespace) -> str:
    """Serve the page until it is interrupted.

    Raises:
        FileNotFoundError: the generator or the face pack is missing.
        ValueError: Gradio is not installed, a setting is invalid, or the port is out of range.
        OSError: the port is taken.
    """
    if find_spec("gradio") is None:
        raise ValueError('mcpipe demo needs Gradio; install it: pip install "mcpipe[demo]"')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Results hold faces: no other user of the machine can read this folder, and it ends with the page.
    with tempfile.TemporaryDirectory(prefix="mcpipe-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        serve(options)
    return "the page is closed"


def serve(options: argparse.Namespace) -> None:
    """Build the page and serve it."""
    import gradio  # pyright: ignore[reportMissingImports]
    import uvicorn  # pyright: ignore[reportMissingImports]
    from fastapi import FastAPI  # pyright: ignore[reportMissingImports]

    from mcpipe.cli.__main__ import say
    from mcpipe.cli.demo.page import FONTS, build

    file = settings_file()
    content = read_content(file, None, options.changes)
    settings = read_settings(content)
    studio = studio_of(settings, located(content, file.parent), options.adapters)
    pool = gallery(file.parent / str(section(content, "source")["faces"]))
    app = gradio.mount_gradio_app(
        FastAPI(),
        build(studio, pool, settings.generate.sample),
        path="/",
        server_name=options.host,
        server_port=options.port,
        footer_links=[],
        max_file_size=MOST_BYTES,
        allowed_paths=[str(file) for file in pool],
        ssr_mode=False,
        theme=gradio.themes.Base(font=FONTS, font_mono=["monospace"]),
    )
    who = "only this machine sees it" if options.host == LOCAL else "every machine that reaches this address sees it"
    say(f"http://{options.host}:{options.port}: {who}; end with Ctrl-C")
    uvicorn.run(only_own_files(app), host=options.host, port=options.port, log_level="warning")


def read_settings(content: dict) -> DemoSettings:
    """The settings of the page from the content of a settings file.

    Raises:
        ValueError: a setting is missing or out of range.
    """
    sections: dict[str, object] = {
        name: section_content(content, name, SECTIONS[name]) for name in ("generate", "pairs")
    }
    sections["samples"] = {"image_size": section(content, "samples")["image_size"]}
    sections["flow"] = {"shift": section(content, "flow")["shift"]}
    return check_params(sections, DemoSettings)


def studio_of(settings: DemoSettings, models: dict[str, Path], adapters: Path) -> Studio:
    """A studio with all adapters of a folder.

    Raises:
        FileNotFoundError: the generator or the face pack is missing.
        ValueError: the face pack is damaged.
    """
    if not models["generator"].is_dir():
        raise FileNotFoundError(f"no generator {models['generator']}; set models.generator")
    pairs = settings.pairs
    finder = InsightFaces(models["faces"], pairs.min_face_score, pairs.detection_size)
    return Studio(
        DemoModels(
            generator=models["generator"],
            adapters=adapters_in(adapters),
            finder=finder,
            pairs=pairs,
            image_size=settings.samples.image_size,
            shift=settings.flow.shift,
        )
    )


def gallery(folder: Path) -> list[Path]:
    """The images of the face pool; none if there is no pool yet."""
    return [each.file for each in portraits(folder) if is_image(each.file)] if folder.is_dir() else []


def only_own_files(app: App) -> App:
    """An application whose pages may load nothing from other hosts (`POLICY`)."""

    async def guarded(scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Send) -> None:
        async def with_policy(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await app(scope, receive, with_policy)

    return guarded
