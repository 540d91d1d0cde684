"""From noise to images along the ODE, by Euler's method."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from mcpipe.core.params import Params
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


def generate(  # noqa: PLR0913  keywords
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    references: Sequence[UInt8[np.ndarray, "N R R 3"]],
    seeds: Sequence[int],
    params: SampleParams,
    *,
    image_size: int,
    batch_size: int,
    hide_references: bool = False,
) -> Iterator[UInt8[np.ndarray, "S S 3"]]:
    """One square image per prompt, its references and its seed, in order.

    The noise of an image depends on its seed alone, so that batches can be cut anywhere. With ``hide_references`` the
    network gets the texts alone.

    Raises:
        ValueError: the lists differ in length, or a size does not fit the generator.
    """
    for network, conditions, noise in batches(
        pipeline, prompts, references, seeds, params, image_size=image_size, batch_size=batch_size
    ):
        seen = conditions.hidden() if hide_references else conditions
        yield from decode_latents(pipeline, latents(network, seen, noise, params))


def generate_with_attention(
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    references: Sequence[UInt8[np.ndarray, "N R R 3"]],
    seeds: Sequence[int],
    params: SampleParams,
    *,
    image_size: int,
    batch_size: int,
) -> Iterator[tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "N rows columns"]]]:
    """The images of `generate`, each with its references' attention to it, averaged over steps, heads and blocks.

    Raises:
        ValueError: see `generate`.
    """
    counts = iter(len(people) for people in references)
    for network, conditions, noise in batches(
        pipeline, prompts, references, seeds, params, image_size=image_size, batch_size=batch_size
    ):
        with recorded_attention(network) as steps:
            drawn = latents(network, conditions, noise, params)
        maps = torch.stack(steps).mean(0).unflatten(-1, network.layout.image).float().cpu().numpy()
        for picture, attention in zip(decode_latents(pipeline, drawn), maps, strict=True):
            yield picture, attention[: next(counts)]


def batches(
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    references: Sequence[UInt8[np.ndarray, "N R R 3"]],
    seeds: Sequence[int],
    params: SampleParams,
    *,
    image_size: int,
    batch_size: int,
) -> Iterator[tuple[ReferenceFlux, Conditions, Float[Tensor, "batch tokens packed"]]]:
    """The network, the conditions and the noise of every batch.

    Raises:
        ValueError: the lists differ in length, or a size does not fit the generator.
    """
    if not len(prompts) == len(references) == len(seeds):
        raise ValueError(f"{len(prompts)} prompts, {len(references)} sets of references, {len(seeds)} seeds: unequal")
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        grids = layout(pipeline, image_size, references[start].shape[1])
        network = ReferenceFlux(pipeline.transformer, grids, params.guidance)
        yield network, encode_conditions(pipeline, prompts[part], references[part]), initial_noise(network, seeds[part])


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


def initial_noise(network: ReferenceFlux, seeds: Sequence[int]) -> Float[Tensor, "batch tokens packed"]:
    """Pure noise, one seed per image, the same on every device."""
    noise = [torch.randn(network.state_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
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
