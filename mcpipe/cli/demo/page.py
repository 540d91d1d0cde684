"""The page of ``mcpipe demo`` by Gradio; no other module imports this one before it is known to be installed."""

import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from PIL import Image

from mcpipe.cli.demo.drawing import Drawn, StoppedError, Studio, write_image
from mcpipe.cli.demo.request import (
    MOST_GUIDANCE,
    MOST_REFERENCES,
    MOST_STEPS,
    check_references,
    checked,
)
from mcpipe.core.errors import one_line
from mcpipe.flux.sampler import SampleParams

QUEUE = 16
"""Maximum number of visitors who wait."""
CACHE_S = 3600
"""Age in seconds at which uploads and results are deleted."""
CAPTION = "face-sim {:.2f}"
FONTS = ["system-ui", "sans-serif"]
"""Fonts of the visitor's system; Gradio's own are loaded from another host."""

LOOKS: dict[str, Any] = {"interactive": False, "object_fit": "contain", "format": "png", "buttons": []}
"""Settings of every gallery."""

Results = tuple[list[tuple[Image.Image, str]], list[tuple[Image.Image, str]], list[str], str]
"""Images, attention maps, files to download, and the message."""


class Sessions:
    """Whether each visitor has asked to stop."""

    def __init__(self) -> None:
        """Begin without visitors."""
        self._stops: dict[str, threading.Event] = {}

    def begin(self, visitor: str | None) -> threading.Event:
        """An event that is set when this visitor stops."""
        return self._stops.setdefault(visitor or "", threading.Event())

    def stop(self, visitor: str | None) -> None:
        """Stop what is being drawn for a visitor, if anything is."""
        if event := self._stops.get(visitor or ""):
            event.set()

    def end(self, visitor: str | None) -> None:
        """Forget a visitor's event."""
        self._stops.pop(visitor or "", None)


def results(drawn: Sequence[Drawn], files: Sequence[Path], message: str) -> Results:
    """What the page shows of the images so far."""
    images = [
        (Image.fromarray(each.picture), f"{each.arm}: " + ", ".join(CAPTION.format(value) for value in each.face_sims))
        for each in drawn
    ]
    maps = [
        (Image.fromarray(heat), f"{each.arm}, reference {number}: " + CAPTION.format(value))
        for each in drawn
        for number, (heat, value) in enumerate(zip(each.maps, each.face_sims, strict=True), 1)
    ]
    return images, maps, [str(file) for file in files], message


Chosen = tuple[list[str], list[str], str]
"""The chosen references, the same for their gallery, and the message."""


class Handlers:
    """What the page's buttons do."""

    def __init__(self, studio: Studio, pool: Sequence[Path]) -> None:
        """Begin without visitors; ``pool`` are the images of the gallery."""
        self._studio, self._pool, self._sessions = studio, pool, Sessions()

    def add(self, files: list[str] | None, chosen: list[str]) -> Chosen:
        """Add uploaded files to the references, all or none of them."""
        try:
            check_references([Path(file) for file in (*chosen, *(files or []))])
            self._studio.faces([Path(file) for file in files or []])
        except (ValueError, OSError) as error:
            return chosen, chosen, one_line(error)
        everything = [*chosen, *(files or [])]
        return everything, everything, ""

    def pick(self, chosen: list[str], event: gr.SelectData) -> Chosen:
        """Add an image of the gallery to the references."""
        return self.add([str(self._pool[event.index])], chosen)

    def draw(  # noqa: PLR0913  the inputs of the page
        self,
        chosen: list[str],
        prompt: str,
        seed: float | None,
        num_steps: float,
        guidance: float,
        arms: list[str],
        visitor: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as Gradio requires
    ) -> Iterator[Results]:
        """Draw one image per arm; each appears when it is ready."""
        drawn: list[Drawn] = []
        files: list[Path] = []
        stop = self._sessions.begin(visitor.session_hash)

        def report(share: float, text: str) -> None:
            progress(share, desc=text)

        try:
            request = checked([Path(file) for file in chosen], prompt, seed, num_steps, guidance, arms)
            folder = Path(tempfile.mkdtemp())
            for image in self._studio.draw(request, report, stop.is_set):
                drawn.append(image)
                files.append(write_image(image, request, folder))
                yield results(drawn, files, f"{len(drawn)} of {len(request.arms)}")
        except StoppedError:
            yield results(drawn, files, "stopped")
        except (ValueError, OSError) as error:
            yield results(drawn, files, one_line(error))
        finally:
            self._sessions.end(visitor.session_hash)

    def stop(self, visitor: gr.Request) -> None:
        """Stop what is being drawn for a visitor."""
        self._sessions.stop(visitor.session_hash)


def build(studio: Studio, pool: Sequence[Path], defaults: SampleParams) -> gr.Blocks:
    """The page; ``pool`` are the images of the gallery."""
    handlers = Handlers(studio, pool)
    with gr.Blocks(title="mcpipe", analytics_enabled=False, delete_cache=(CACHE_S, CACHE_S)) as page:
        message = gr.Textbox(label="Message", interactive=False, elem_id="message", render=False)
        with gr.Row():
            with gr.Column(scale=2):
                chosen = choose_references(handlers, pool, message)
                inputs = [chosen, *choose_settings(studio, defaults)]
                with gr.Row():
                    start = gr.Button("Draw", variant="primary", elem_id="draw")
                    stop = gr.Button("Stop", elem_id="stop")
                message.render()
            with gr.Column(scale=3):
                images = gr.Gallery(label="Images", columns=3, height=320, elem_id="images", **LOOKS)
                maps = gr.Gallery(label="Where each reference looked", columns=4, height=320, elem_id="maps", **LOOKS)
                files = gr.Files(label="Download, with metadata", interactive=False, elem_id="files")
        start.click(handlers.draw, inputs, [images, maps, files, message])
        stop.click(handlers.stop, None, None, queue=False)
    return page.queue(max_size=QUEUE, default_concurrency_limit=1)


def choose_references(handlers: Handlers, pool: Sequence[Path], message: gr.Textbox) -> gr.State:
    """The part of the page with uploads and the face pool; returns the chosen references."""
    chosen = gr.State([])
    people = gr.Gallery(label=f"References (up to {MOST_REFERENCES})", columns=4, height=150, elem_id="people", **LOOKS)
    with gr.Row():
        upload = gr.UploadButton("Upload portraits", file_count="multiple", elem_id="upload")
        clear = gr.Button("Remove all", elem_id="clear")
    portraits = [str(file) for file in pool]
    gallery = gr.Gallery(
        portraits,
        label="Face pool: a click chooses",
        columns=8,
        height=200,
        allow_preview=False,
        elem_id="pool",
        **LOOKS,
    )
    changed = [chosen, people, message]
    upload.upload(handlers.add, [upload, chosen], changed)
    gallery.select(handlers.pick, [chosen], changed)
    clear.click(lambda: ([], [], ""), None, changed)
    return chosen


def choose_settings(studio: Studio, defaults: SampleParams) -> list[gr.Component]:
    """The part of the page with the prompt and the settings, which it returns in the order of `Handlers.draw`."""
    prompt = gr.Textbox(label="Prompt", lines=2, elem_id="prompt")
    arms = gr.CheckboxGroup(
        studio.arms, value=studio.arms[:1], label="Adapters, side by side from the same noise", elem_id="arms"
    )
    with gr.Row():
        seed = gr.Number(0, label="Seed", elem_id="seed")
        steps = gr.Slider(1, MOST_STEPS, defaults.num_steps, step=1, label="Steps", elem_id="steps")
        guidance = gr.Slider(0, MOST_GUIDANCE, defaults.guidance, label="Guidance", elem_id="guidance")
    return [prompt, seed, steps, guidance, arms]
