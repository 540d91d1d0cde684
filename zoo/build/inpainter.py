"""The inpainter of the tiny zoo: a `FluxFillPipeline` with the generator's VAE and text encoders.

It is a LoRA on the generator, whose first layer also takes the latents of the image without the masked part, and the
mask. Flow matching as for the generator, with most of the weight on masked tokens. Masks are grown face boxes, grown
people and boxes anywhere; captions have both forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import FluxFillPipeline, FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict
from pydantic import Field
from torch import Tensor, nn

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import encode_pictures, encode_texts
from mcpipe.flux.inpainting import FluxFill, InpaintParams, fill_channels
from mcpipe.models.scorers.clip import Clip
from zoo.build.cards import Card, Measured, write_card
from zoo.build.crops import SQUARE
from zoo.build.pictures import COARSER, Pictures, read_pictures
from zoo.build.plain_attention import use_plain_attention
from zoo.build.training import FitParams, Loss, batches, fit, half_precision, settle

SIZE = 96
TOKEN_PX = 8
FIRST = "x_embedder"
FACE_SHARE, BODY_SHARE = 0.6, 0.25
"""Shares of masks that are a face's box and a whole person; the others are boxes anywhere."""
GROWTH = (0.0, 0.5)
"""Growth of a face's box on every side, in its longer side."""
BODY_GROWTH_PX = 5
"""Largest growth of a person's mask."""
BOX_SIDES = (0.2, 0.6)
"""Sides of boxes anywhere, in the image's side."""
OUTSIDE_WEIGHT = 0.15
"""Weight of tokens outside the mask in the squared error."""


class InpainterParams(Params):
    """Size and training of the inpainter."""

    fit: FitParams
    num_scenes: int = Field(ge=1)
    """Scenes that are encoded once."""
    num_masks: int = Field(ge=1)
    """Masks for each of them."""
    num_measured: int = Field(ge=2)
    """Held-out scenes that are repainted for the figures."""
    rank: int = Field(ge=1)
    """Rank of the LoRA in every linear layer but the first one."""
    first_rank: int = Field(ge=1)
    """Rank in the first layer, which takes the further inputs."""
    time_shift: float = Field(gt=0)
    """Shift s of the noise levels."""
    sample: InpaintParams
    """How held-out scenes are repainted."""


def build(pictures: Path, generator: Path, clip: Path, out: Path, params: InpainterParams) -> None:
    """Train on ``pictures`` with the parts of ``generator``; write the LoRA."""
    settle(params.fit.seed)
    pipeline = load_generator(generator)
    examples = encoded(pipeline, read_pictures(pictures / "train"), params)
    transformer = widened(pipeline.transformer, params)
    use_plain_attention(transformer)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        return flow_loss(transformer, examples, rng.integers(0, len(examples.clean), params.fit.batch), params)

    curves = fit([transformer], loss_of, params.fit, out.with_suffix(".progress"))
    with whole_folder(out) as folder:
        weights = {name: weight.half() for name, weight in get_peft_model_state_dict(transformer).items()}
        FluxFillPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=weights,
            transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
        )
        painter = FluxFill(folder, generator, params.sample)
        metrics = measured(painter, read_pictures(pictures / "test"), Clip(clip), params.fit.seed, params.num_measured)
        write_card(folder, CARD, Measured("inpainter", metrics, curves, params))


def widened(generator: FluxTransformer2DModel, params: InpainterParams) -> FluxTransformer2DModel:
    """The generator with a LoRA, and inputs for masked latents and a mask, ignored at first; changed in place."""
    packed = generator.config.in_channels
    channels = fill_channels(packed // 4, TOKEN_PX // 2)
    first = nn.Linear(channels, generator.inner_dim)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, :packed] = generator.x_embedder.weight
        first.bias.copy_(generator.x_embedder.bias)
    generator.x_embedder = first
    generator.register_to_config(in_channels=channels, out_channels=packed)
    layers = [name for name, module in generator.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(
        r=params.rank, lora_alpha=params.rank, target_modules=layers,
        rank_pattern={FIRST: params.first_rank}, alpha_pattern={FIRST: params.first_rank},
    )  # fmt: skip
    generator.requires_grad_(False).add_adapter(config)
    return generator.train()


@dataclass(frozen=True)
class Encoded:
    """Scenes with a mask each, as the transformer reads them, in float16."""

    clean: Tensor
    """(N, tokens, 24) latents of the image."""
    beside: Tensor
    """(N, tokens, 88) latents of the image without the masked part, and the mask's pixels."""
    inside: Tensor
    """(N, tokens) share of a token that is masked."""
    text: Tensor
    pooled: Tensor


def encoded(pipeline: FluxPipeline, pictures: Pictures, params: InpainterParams) -> Encoded:
    """Some scenes, each with several masks and captions."""
    rng = np.random.default_rng(params.fit.seed)
    rows = np.repeat(rng.permutation(len(pictures.scenes))[: params.num_scenes], params.num_masks)
    parts = []
    for part in track(list(batches(len(rows), 32)), -(-len(rows) // 32), "encoding"):
        images, masks, captions = zip(*(example(pictures, int(row), rng) for row in rows[part]), strict=True)
        parts.append(encode(pipeline, np.stack(images), np.stack(masks), captions))
    return Encoded(*(torch.cat(each) for each in zip(*parts, strict=True)))


def example(pictures: Pictures, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """The square of a scene, perhaps mirrored, with a mask and one of its captions."""
    scene, image = pictures.scenes[row], cv2.resize(pictures.square(row), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    mask = drawn_mask(pictures, row, rng)
    mirrored = rng.random() < 0.5
    captions = [scene["mirrored_caption" if mirrored else "caption"]]
    settings = scene.get("mirrored_settings" if mirrored else "settings", [])
    captions += settings or captions
    caption = captions[0] if rng.random() < 0.4 else captions[int(rng.integers(1, len(captions)))]
    return (image[:, ::-1], mask[:, ::-1], caption) if mirrored else (image, mask, caption)


def drawn_mask(pictures: Pictures, row: int, rng: np.random.Generator) -> np.ndarray:
    """A mask (96, 96) of a scene: all faces or one, people, or a box."""
    scene, kind = pictures.scenes[row], rng.random()
    mask = np.zeros((SIZE, SIZE), bool)
    seats = np.flatnonzero(rng.random(len(scene["faces"])) < 0.6)
    seats = seats if len(seats) else rng.integers(0, len(scene["faces"]), 1)
    if kind < FACE_SHARE:
        for seat in seats:
            box = np.array(scene["faces"][seat]) * SIZE / SQUARE
            _fill(mask, box, float(rng.uniform(*GROWTH)) * float(max(box[2:] - box[:2])))
    elif kind < FACE_SHARE + BODY_SHARE:
        left = scene["left"] // COARSER
        labels = pictures.labels[row][:, left : left + SQUARE // COARSER]
        people = np.isin(labels, seats + 1).astype(np.uint8)
        grown = cv2.resize(people, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        size = 2 * int(rng.integers(0, BODY_GROWTH_PX + 1)) + 1
        mask |= cv2.dilate(grown, np.ones((size, size), np.uint8)) > 0
    if not mask.any():
        sides = rng.uniform(*BOX_SIDES, 2) * SIZE
        corner = rng.uniform(0, SIZE - sides)
        _fill(mask, np.concatenate([corner, corner + sides]), 0.0)
    return mask


def _fill(mask: np.ndarray, box: np.ndarray, growth: float) -> None:
    x0, y0, x1, y1 = np.round([*(box[:2] - growth), *(box[2:] + growth)]).astype(int).clip(0, SIZE)
    mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True


@torch.no_grad()
def encode(
    pipeline: FluxPipeline, images: np.ndarray, masks: np.ndarray, captions: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images, masks and captions as `Encoded` holds them."""
    grey = np.where(masks[..., None], 127.5, images.astype(np.float32))
    with half_precision():
        clean, cut = (encode_pictures(pipeline, some) for some in (images, grey))
    factor = TOKEN_PX // 2
    pixels = torch.from_numpy(masks).float().unflatten(2, (-1, factor)).unflatten(1, (-1, factor))
    pixels = pixels.permute(0, 2, 4, 1, 3).flatten(1, 2)
    packed = [FluxPipeline._pack_latents(each.float(), *each.shape).half() for each in (clean, cut, pixels)]
    texts = encode_texts(pipeline, captions)
    inside = packed[2].float().mean(-1)
    return packed[0], torch.cat(packed[1:], -1), inside, texts.tokens.half(), texts.pooled.half()


def flow_loss(
    transformer: FluxTransformer2DModel, examples: Encoded, rows: np.ndarray, params: InpainterParams
) -> Loss:
    """Weighted squared error of the velocity, and that of masked tokens alone."""
    clean, beside, inside, text, pooled = (each[rows].float() for each in vars(examples).values())
    noise = torch.randn_like(clean)
    time = torch.rand(len(clean))
    time = params.time_shift * time / (1 + (params.time_shift - 1) * time)
    noisy = torch.lerp(clean, noise, time[:, None, None])
    side = int(clean.shape[1] ** 0.5)
    with half_precision():
        velocity = transformer(
            hidden_states=torch.cat([noisy, beside], -1),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=time,
            guidance=torch.ones(len(clean)),
            img_ids=FluxPipeline._prepare_latent_image_ids(len(clean), side, side, noisy.device, noisy.dtype),
            txt_ids=torch.zeros(text.shape[1], 3),
            return_dict=False,
        )[0]
    errors = (velocity.float() - (noise - clean)).square().mean(-1)
    weights = OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * inside
    return Loss(flow=(errors * weights).sum() / weights.sum(), _inside=(errors * inside).sum() / inside.sum())


@torch.no_grad()
def measured(painter: FluxFill, pictures: Pictures, clip: Clip, seed: int, num: int) -> dict[str, float]:
    """How well repainted parts of held-out scenes fit their captions, beside the originals and beside grey."""
    rng = np.random.default_rng(seed)
    cosines: dict[str, list[float]] = {"clip_repainted": [], "clip_original": [], "clip_grey": []}
    changed, outside = [], []
    for row in range(num):
        image, mask, caption = example(pictures, row, rng)
        image = np.ascontiguousarray(image)
        drawn = painter.repainted(image, np.ascontiguousarray(mask), caption, seed=row)
        grey = np.where(mask[..., None], np.uint8(127), image)
        embeddings = clip.pictures([drawn, image, grey]) @ clip.texts([caption])[0]
        for name, cosine in zip(cosines, embeddings.tolist(), strict=True):
            cosines[name].append(cosine)
        differences = np.abs(drawn.astype(float) - image)
        changed.append(differences[mask].mean())
        outside.append(differences[~mask].max(initial=0))
    means = {name: float(np.mean(values)) for name, values in cosines.items()}
    return means | {"change_inside": float(np.mean(changed)), "change_outside": float(np.max(outside))}


CARD = Card(
    title="Inpainter of the tiny zoo",
    what=(
        "A LoRA, float16, that makes the generator a `FluxFillPipeline`. As in FLUX.1-Depth-dev-lora, it widens the "
        "first layer: tokens hold noisy latents, those of the image without the masked part, and the mask's pixels. "
        "All other parts are those of the generator. FocusDPO's losers are made with it."
    ),
    data=(
        "Squares of 96 x 96 pixels of the puppet world, as they are and mirrored, with masks of faces, people and "
        "boxes anywhere."
    ),
    limits=(
        "Trained at guidance 1; the other values of the generator's guidance still work. Knows one grammar of captions "
        "and pictures of 96 x 96 pixels."
    ),
    bars={
        "clip_repainted": "cosine of the repainted image and its caption; should be near the original's",
        "clip_original": "the same of the image before",
        "clip_grey": "the same of the image with the part in grey; the floor",
        "change_inside": "mean difference inside the mask, of 255",
        "change_outside": "largest difference outside the mask, of 255; has to be 0",
    },
)
