"""Generation from Python, with the interface of a diffusers pipeline.

    pipeline = MultiCrafterPipeline.from_pretrained("zoo/generator", adapter="data/models/train_rl")
    out = pipeline("a woman and a man in a park", [face_a, face_b], generator=torch.Generator().manual_seed(7))
    out.images[0].save("park.png")

It is a stock `FluxPipeline` in every other respect: offloading, saving and devices work as they do there. What it
draws is what `mcpipe.flux.sampler.generate` draws, which the benchmark uses.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.attention import AttentionCapture
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import SampleParams, encode_conditions, latents
from mcpipe.flux.tokens import layout

OutputType = Literal["pil", "np", "latent"]
Picture = Image.Image | np.ndarray
"""A square RGB picture; arrays hold 0-255."""


@dataclass(frozen=True)
class MultiCrafterOutput:
    """What one call drew."""

    images: list[Image.Image] | Float[np.ndarray, "batch S S 3"] | Float[Tensor, "batch channels h w"]
    """Pictures (`pil`), values in [0, 1] (`np`) or latents ready for the VAE (`latent`)."""
    attention: Float[Tensor, "batch subjects rows columns"] | None
    """Where each reference looked in the picture, averaged over all steps, each map adding up to 1; if asked for."""


class MultiCrafterPipeline(FluxPipeline):
    """FLUX with an adapter of this project and any number of references per picture."""

    spec: AdapterSpec
    """What the adapter is made of, and the sizes it was trained for."""

    @classmethod
    def from_pretrained(cls, generator: str | Path, *, adapter: str | Path) -> "MultiCrafterPipeline":
        """The FLUX pipeline of a folder with the adapter of another one, frozen, on the best device there is.

        Raises:
            FileNotFoundError: a folder, or a file of the adapter, is missing.
            ValueError: a file is damaged, or the adapter belongs to another generator.
        """
        pipeline = cls(**load_generator(Path(generator)).components)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.spec = load_adapter(pipeline, Path(adapter))
        pipeline.transformer.requires_grad_(False)
        return pipeline

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  as diffusers does
        self,
        prompt: str | Sequence[str],
        references: Sequence[Picture] | Sequence[Sequence[Picture]],
        *,
        num_inference_steps: int = 20,
        guidance_scale: float = 4.0,
        shift: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: OutputType = "pil",
        output_attention: bool = False,
    ) -> MultiCrafterOutput:
        """Draw one picture per prompt, of the people in its references.

        One prompt takes a sequence of pictures, several prompts take one such sequence each; these may differ in
        length. A reference is a square around a face, as training saw it; other sizes are resized. ``shift`` is that of
        the noise schedule; without it, the one that the adapter was trained at.

        Raises:
            ValueError: nobody tells the shift; prompts, references and generators differ in number; a prompt has no
                reference; one is not square; or maps are asked for where prompts have different numbers of references.
        """
        if (shift := self.spec.shift if shift is None else shift) is None:
            raise ValueError("the adapter does not tell the shift of its training (adapter.json); give shift=...")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        people = _per_prompt(prompts, [references] if isinstance(prompt, str) else references)
        pictures = [self._prepared(each) for each in people]
        if output_attention and len({len(each) for each in pictures}) > 1:
            raise ValueError("attention maps need as many references for every prompt; draw the pictures one by one")
        grids = layout(self, self.spec.image_size, self.spec.reference_size)
        network = ReferenceFlux(self.transformer, grids, guidance_scale)
        conditions = encode_conditions(self, prompts, pictures)
        noise = _noise(network, len(prompts), generator)
        params = SampleParams(num_steps=num_inference_steps, guidance=float(guidance_scale), shift=float(shift))
        if not output_attention:
            return MultiCrafterOutput(_finished(self, latents(network, conditions, noise, params), output_type), None)
        with watched(network) as maps:
            drawn = latents(network, conditions, noise, params)
        mean = torch.stack(maps).mean(0).unflatten(-1, grids.image)
        return MultiCrafterOutput(_finished(self, drawn, output_type), mean)

    def _prepared(self, references: Sequence[Picture]) -> UInt8[np.ndarray, "N R R 3"]:
        """References at the size that the adapter was trained with."""
        return np.stack(
            [_square(picture, number, self.spec.reference_size) for number, picture in enumerate(references)]
        )


@contextmanager
def watched(network: ReferenceFlux) -> Iterator[list[Float[Tensor, "batch subjects tokens"]]]:
    """Within this context every step of the network appends its attention maps to a list."""
    maps: list[Tensor] = []
    with AttentionCapture(network.transformer, network.layout) as capture:
        handle = network.register_forward_hook(lambda *_: maps.append(capture.mean()))
        try:
            yield maps
        finally:
            handle.remove()


def _per_prompt(prompts: list[str], references: Sequence[object]) -> list[list[Picture]]:
    """The references of every prompt.

    Raises:
        ValueError: there are more or fewer sets than prompts, or a set is empty.
    """
    if len(prompts) != len(references):
        raise ValueError(f"{len(prompts)} prompts, but {len(references)} sets of references")
    people = []
    for prompt, given in zip(prompts, references, strict=True):
        pictures = list(given) if isinstance(given, list | tuple | np.ndarray) else []
        if not pictures:
            raise ValueError(f"no references for the prompt {prompt!r}; give a list of pictures, one per person")
        people.append(pictures)
    return people


def _square(picture: Picture, number: int, size: int) -> UInt8[np.ndarray, "R R 3"]:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if image.width != image.height:
        raise ValueError(
            f"reference {number + 1} measures {image.width} x {image.height} px; it should be a square around a face, "
            "as `mcpipe generate` cuts it"
        )
    image = image.convert("RGB")
    return np.asarray(image if image.width == size else image.resize((size, size), Image.Resampling.LANCZOS))


def _noise(
    network: ReferenceFlux, num: int, generator: torch.Generator | Sequence[torch.Generator] | None
) -> Float[Tensor, "batch tokens packed"]:
    """Pure noise; one generator serves all pictures in turn, and a fresh one of a seed gives what the sampler gives."""
    given = [generator] * num if generator is None or isinstance(generator, torch.Generator) else list(generator)
    if len(given) != num:
        raise ValueError(f"{num} prompts, but {len(given)} generators")
    shape, device = network.state_shape, network.transformer.x_embedder.weight.device
    drawn = [torch.randn(shape, generator=each, device=each.device if each else None).to(device) for each in given]
    return torch.stack(drawn)


def _finished(
    pipeline: FluxPipeline, drawn: Float[Tensor, "batch channels h w"], output_type: OutputType
) -> list[Image.Image] | np.ndarray | Tensor:
    if output_type == "latent":
        return drawn
    pictures = decode_latents(pipeline, drawn)
    if output_type == "np":
        return pictures.astype(np.float32) / 255
    if output_type == "pil":
        return [Image.fromarray(picture) for picture in pictures]
    raise ValueError(f"output_type is one of pil, np and latent, not {output_type!r}")
