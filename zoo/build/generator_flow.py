"""Flow matching of the zoo's generator, with and without references, and the teaching of guidance."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from torch.nn import functional

from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import Layout
from zoo.build.face_reader import FaceReader, cut, faces_of
from zoo.build.generator_data import Batch, unpacked
from zoo.build.generator_text import Text
from zoo.build.training import Loss, batches, half_precision

GUIDANCE_RANGE = (1.5, 5.0)


class Network:
    """The transformer with and without references."""

    def __init__(self, transformer: FluxTransformer2DModel, layout: Layout) -> None:
        self._transformer = transformer
        self._with_references = ReferenceFlux(transformer, layout, guidance=1.0)

    def __call__(
        self,
        noisy: Tensor,
        time: Tensor,
        guidance: Tensor,
        text: tuple[Tensor, Tensor],
        references: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """The velocity of packed latents (B, tokens, channels), in float32.

        ``guidance`` (B,); ``references`` and which of them are present, as in `Conditions`.
        """
        embeddings, pooled = text
        if references is not None:
            conditions = Conditions(embeddings, pooled, *references)
            return self._with_references.guided(noisy, time, guidance, conditions)
        side = int(noisy.shape[1] ** 0.5)
        places = FluxPipeline._prepare_latent_image_ids(len(noisy), side, side, noisy.device, noisy.dtype)
        return self._transformer(
            hidden_states=noisy,
            encoder_hidden_states=embeddings,
            pooled_projections=pooled,
            timestep=time,
            guidance=guidance,
            img_ids=places,
            txt_ids=torch.zeros(embeddings.shape[1], 3),
            return_dict=False,
        )[0].float()


@dataclass(frozen=True)
class Weighing:
    """What counts how much in the flow loss."""

    reader: FaceReader
    """Compares drawn faces with true ones."""
    head_weight: float
    """Weight of a token that shows a head; that of any other is 1."""
    time_shift: float
    """Shift of the noise levels."""


def flow_loss(
    text: Text,
    network: Network,
    batch: Batch,
    words: tuple[Tensor, Tensor, Tensor, Tensor],
    guided_share: float,
    weighing: Weighing,
) -> Loss:
    """Squared error of the velocity; a share of the rows is taught guided velocities of the network itself.

    The term ``_faces`` is the distance of faces in the images that plain predictions lead to from the true ones.
    """
    clip_ids, t5_ids, no_clip, no_t5 = words
    clean = batch.latents
    noise = torch.randn_like(clean)
    time = shifted(torch.sigmoid(torch.randn(len(clean)) * 1.1), weighing.time_shift)
    noisy = torch.lerp(clean, noise, time[:, None, None])
    target = noise - clean
    guidance = torch.ones(len(clean))
    rows = round(guided_share * len(clean))
    with half_precision():
        if rows:
            low, high = GUIDANCE_RANGE
            guidance[:rows] = low + (high - low) * torch.rand(rows)
            target = target.clone()
            with torch.no_grad():
                ones, some = torch.ones(rows), slice(rows)
                words_only = text(torch.cat([clip_ids[some], no_clip]), torch.cat([t5_ids[some], no_t5]))
                described = words_only[0][some], words_only[1][some]
                nothing = words_only[0][rows:].expand(rows, -1, -1), words_only[1][rows:].expand(rows, -1)
                conditional = network(noisy[some], time[some], ones, described, _references(batch, some))
                unconditional = network(noisy[some], time[some], ones, nothing, None)
            # The data itself stays the anchor; guidance adds its difference.
            target[some] += (guidance[some, None, None] - 1) * (conditional - unconditional)
        predicted = network(noisy, time, guidance, text(clip_ids, t5_ids), _references(batch, slice(None)))
    heads = batch.traits[..., 0].isfinite()
    weights = 1 + (weighing.head_weight - 1) * heads.float()
    errors = (predicted - target).square().mean(dim=-1)
    weighted = (errors * weights / weights.mean()).mean(dim=-1)
    plain_rows = slice(rows, None)
    estimates = noisy - time[:, None, None] * predicted
    likeness = {"_faces": _face_distance(weighing.reader, batch, estimates, time, plain_rows)}
    plain, kind = errors[rows:].mean(), "words" if batch.references is None else "references"
    if not rows:
        return Loss(flow=weighted.mean(), **{f"_{kind}": plain}, **likeness)
    share = rows / len(clean)
    parts = {"plain": (1 - share) * weighted[rows:].mean(), "guided": share * weighted[:rows].mean()}
    return Loss(**parts, _flow=weighted[rows:].mean(), **{f"_{kind}": plain}, **likeness)


def _face_distance(reader: FaceReader, batch: Batch, estimates: Tensor, time: Tensor, rows: slice) -> Tensor:
    """Mean distance of faces in estimates (B, tokens, channels) of clean latents (`FaceReader.distance`).

    Each counts 1 - t times: near pure noise nothing of a face can be known.
    """
    faces = faces_of(batch.faces[rows])
    if not len(faces):
        return estimates.sum() * 0
    drawn, true = (cut(unpacked(each[rows]), faces) for each in (estimates, batch.latents))
    return ((1 - time[rows][faces.images]) * reader.distance(drawn, true)).mean()


def _references(batch: Batch, rows: slice) -> tuple[Tensor, Tensor] | None:
    if batch.references is None or batch.present is None:
        return None
    return batch.references[rows], batch.present[rows]


@torch.no_grad()
def held_out_loss(text: Text, network: Network, batch: Batch, seed: int) -> float:
    """The plain loss on held-out scenes without references, with fixed noise at evenly spread levels."""
    torch.manual_seed(seed)
    losses = []
    for part in batches(len(batch.latents), 16):
        clean = batch.latents[part].float()
        noise = torch.randn_like(clean)
        time = (torch.arange(len(clean)) + 0.5) / len(clean)
        noisy = torch.lerp(clean, noise, time[:, None, None])
        words = text(batch.clip_ids[part], batch.t5_ids[part])
        predicted = network(noisy, time, torch.ones(len(clean)), words, None)
        losses.append(functional.mse_loss(predicted, noise - clean).item())
    return float(np.mean(losses))


def shifted(time: Tensor, shift: float) -> Tensor:
    """Noise levels moved towards noise, as `FlowMatchEulerDiscreteScheduler` moves them."""
    return shift * time / (1 + (shift - 1) * time)
