"""From noise to images along the ODE, by Euler's method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from mcpipe.core.params import Params
from mcpipe.core.sizes import Size
from mcpipe.flux.attention import recorded_attention
from mcpipe.flux.backbone import FluxPipeline, execution_device
from mcpipe.flux.encoders import decode_latents, encode_pictures, encode_texts
from mcpipe.flux.network import Conditions, ReferenceFlux, padded_references
from mcpipe.flux.tokens import layout, pack, unpack
from mcpipe.objectives import sde
from mcpipe.objectives.flow import schedule


class SampleParams(Params):
    """How images are drawn."""

    num_steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    """Guidance scale, an input of the guidance-distilled transformer."""
    shift: float = Field(gt=0)
    """s of the noise schedule; larger spends more steps near pure noise."""


@dataclass(frozen=True)
class Requests:
    """Images to draw, each from a text, references and a seed of its own.

    Raises:
        ValueError: the lists differ in length.
    """

    prompts: Sequence[str]
    references: Sequence[UInt8[np.ndarray, "N R R 3"]]
    """Images may have different numbers of references; all references have one size."""
    seeds: Sequence[int]
    """The noise of an image depends on its seed alone, so that batches can be cut anywhere."""
    params: SampleParams
    image_size: int | Sequence[int | Size]
    """Side of all images in pixels, or of each one its side or its width and height."""
    batch_size: int
    """Images drawn together; of several sizes, those of a size are."""

    def __post_init__(self) -> None:
        lengths = len(self.prompts), len(self.references), len(self.seeds)
        if len(set(lengths)) > 1:
            raise ValueError("{} prompts, {} sets of references, {} seeds: unequal".format(*lengths))
        if not isinstance(self.image_size, int) and len(self.image_size) != len(self.prompts):
            raise ValueError(f"{len(self.prompts)} prompts, {len(self.image_size)} sizes: unequal")

    def runs(self) -> Iterator[tuple[slice, int | Size]]:
        """Places of the images that are drawn together, and their size; neighbours of one size, in order."""
        sizes = [self.image_size] * len(self.prompts) if isinstance(self.image_size, int) else self.image_size
        start = 0
        for size, same in groupby(sizes):
            stop = start + len(list(same))
            for first in range(start, stop, self.batch_size):
                yield slice(first, min(first + self.batch_size, stop)), size
            start = stop


def generate(
    pipeline: FluxPipeline, requests: Requests, *, hide_references: bool = False
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The requested images, in order.

    With ``hide_references`` the network gets the texts alone.

    Raises:
        ValueError: a size does not fit the generator.
    """
    for network, conditions, noise in batches(pipeline, requests):
        visible = conditions.hidden() if hide_references else conditions
        yield from decode_latents(pipeline, latents(network, visible, noise, requests.params))


def generate_with_attention(
    pipeline: FluxPipeline, requests: Requests
) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "N rows columns"]]]:
    """The images of `generate`, each with its references' attention to it, averaged over steps, heads and blocks.

    Raises:
        ValueError: see `generate`.
    """
    counts = iter(len(people) for people in requests.references)
    for network, conditions, noise in batches(pipeline, requests):
        with recorded_attention(network) as steps:
            drawn = latents(network, conditions, noise, requests.params)
        maps = torch.stack(steps).mean(0).unflatten(-1, network.layout.image).float().cpu().numpy()
        for image, attention in zip(decode_latents(pipeline, drawn), maps, strict=True):
            yield image, attention[: next(counts)]


def batches(
    pipeline: FluxPipeline, requests: Requests
) -> Iterator[tuple[ReferenceFlux, Conditions, Float[Tensor, "batch tokens packed"]]]:
    """The network, the conditions and the noise of every batch.

    Raises:
        ValueError: a size does not fit the generator.
    """
    for part, size in requests.runs():
        prompts, references = requests.prompts[part], requests.references[part]
        grids = layout(pipeline, size, references[0].shape[1])
        network = ReferenceFlux(pipeline.transformer, grids, requests.params.guidance)
        yield network, encode_conditions(pipeline, prompts, references), initial_noise(network, requests.seeds[part])


def latents(
    network: ReferenceFlux,
    conditions: Conditions,
    noise: Float[Tensor, "batch tokens packed"],
    params: SampleParams,
) -> Float[Tensor, "batch channels h w"]:
    """Latents for the VAE, sampled from pure noise along the whole schedule."""
    sigmas = schedule(params.num_steps, params.shift)
    return unpack(integrate(network, noise, sigmas, range(params.num_steps), conditions), network.layout.image)


def encode_conditions(
    pipeline: FluxPipeline, prompts: Sequence[str], references: Sequence[UInt8[np.ndarray, "N R R 3"]]
) -> Conditions:
    """Texts and references as the network reads them; images may have different numbers of references."""
    texts = encode_texts(pipeline, prompts)
    tokens, present = padded_references([pack(encode_pictures(pipeline, faces)) for faces in references])
    return Conditions(texts.tokens, texts.pooled, tokens, present)


def initial_noise(
    network: ReferenceFlux, seeds: Sequence[int], conditions: Conditions | None = None
) -> Float[Tensor, "batch tokens packed"]:
    """Pure noise, one seed per image, the same on every device; of the shape that ``conditions`` name, if any."""
    shape = network.state_shape if conditions is None else network.shape_of(conditions)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(execution_device(network.transformer))


@torch.no_grad()
def integrate(
    network: ReferenceFlux,
    x: Float[Tensor, "batch tokens packed"],
    sigmas: Float[Tensor, " levels"],
    steps: range,
    conditions: Conditions,
) -> Float[Tensor, "batch tokens packed"]:
    """The state after some deterministic steps of a schedule."""
    for index in steps:
        t = torch.full((len(x),), float(sigmas[index]), device=x.device)
        x = sde.step(sigmas, index, eta=0.0).mean(x, network(x, t, conditions))
    return x
