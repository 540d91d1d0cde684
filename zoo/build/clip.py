"""CLIP of the tiny zoo: `CLIPModel` with processor, contrastive on scenes and on single faces.

Captions have both forms (`zoo.build.forms`). Each batch has the mirrored captions as further negatives, where sides are
mentioned: who stands left and who right is part of what is said. Heads predict the visible attributes from the image's
tokens during training (`zoo.build.sightings`).
"""

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Card, Measured, write_card
from zoo.build.crops import SQUARE, on_white
from zoo.build.forms import caption_and_opposite, captions_by_form
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.sightings import Heads, Sighting, in_reference, in_scene
from zoo.build.tokenizers import clip_tokenizer
from zoo.build.training import FitParams, Loss, batches, fit, half_precision, settle

LENGTH = 77
VOCABULARY = 600
FACE_SHARE = 0.2
"""Batches of single faces; the pipeline compares cut-outs with references."""

AMONG = 64
"""Number of images or texts in a retrieval."""

PREFIX = {"people": "", "scene": "scene_"}
"""What stands before the figures of each form of captions."""

LARGEST_SCALE = 4.6052
"""Logarithm of the largest factor on cosines, 100 as in CLIP."""


class ClipParams(Params):
    """Size and training."""

    fit: FitParams
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    patch: int = Field(gt=0)
    """Pixels of a patch's side."""
    width: int
    """Width of both encoders and of the joint space."""
    vision_layers: int = Field(ge=1)
    """Layers of the image's encoder."""
    text_layers: int = Field(ge=1)
    """Layers of the text's encoder."""


def build(pictures: Path, out: Path, params: ClipParams) -> None:
    """Train on the squares of ``pictures`` and write the model's folder."""
    write_model(pictures, out, params, "clip")


def write_model(pictures: Path, out: Path, params: ClipParams, name: str) -> None:
    """Train on the squares of ``pictures`` and write the folder of the checkpoint ``name``."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    processor = make_processor(train, params.size)
    model = make_model(processor, params)
    squares, heads = train.small(params.size), Heads(params.width)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        if rng.random() < FACE_SHARE:
            images, texts, sightings = _faces(train, params, rng)
        else:
            images, texts, sightings = _scenes(train, squares, params.fit.batch, rng)
        return seen_loss(model, heads, as_input(images, processor), words(processor, texts), sightings)

    curves = fit([model, heads], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, processor, test)
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, card(name), Measured(name, metrics, curves, params))


def make_processor(pictures: Pictures, size: int) -> CLIPProcessor:
    """Tokenizer learnt from the sentences, and CLIP's image processing at another size."""
    tokenizer = clip_tokenizer(list(pictures.all_texts()), VOCABULARY, LENGTH)
    images = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def make_model(processor: CLIPProcessor, params: ClipParams) -> CLIPModel:
    """An untrained model."""
    tokenizer = processor.tokenizer
    shared = {
        "hidden_size": params.width,
        "intermediate_size": 2 * params.width,
        "num_attention_heads": 4,
        "projection_dim": params.width,
    }
    text = shared | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": params.text_layers,
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shared | {
        "num_hidden_layers": params.vision_layers,
        "image_size": params.size,
        "patch_size": params.patch,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=params.width))
    nn.init.constant_(model.logit_scale, 2.0)
    return model


def _scenes(
    pictures: Pictures, squares: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], list[Sighting]]:
    """Squares, mirrored or not, their captions, followed by the captions of the mirrored scenes, and sightings."""
    images, right, wrong, sightings = [], [], [], []
    for place, index in enumerate(rng.integers(0, len(squares), count)):
        scene, mirror = pictures.scenes[index], bool(rng.random() < 0.5)
        images.append(jittered(squares[index][:, ::-1] if mirror else squares[index], rng))
        caption, opposite = caption_and_opposite(scene, mirror, rng)
        right.append(caption)
        wrong += [opposite] if opposite else []
        for box, attributes in zip(scene["faces"], scene["attributes"], strict=True):
            left, far = box[0] / SQUARE, box[2] / SQUARE
            sightings.append(in_scene(place, (1 - far, 1 - left) if mirror else (left, far), attributes))
    return np.stack(images), right + wrong, sightings


def _faces(
    pictures: Pictures, params: ClipParams, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], list[Sighting]]:
    images, texts, sightings = [], [], []
    for place, index in enumerate(rng.integers(0, len(pictures.scenes), params.fit.batch)):
        scene = pictures.scenes[index]
        seat = int(rng.integers(len(scene["traits"])))
        crop = on_white(pictures.references[scene["first_reference"] + seat], rng)
        crop = cv2.resize(crop, (params.size, params.size), interpolation=cv2.INTER_LINEAR)
        images.append(jittered(crop[:, ::-1] if rng.random() < 0.5 else crop, rng))
        texts.append(scene["traits"][seat])
        sightings.append(in_reference(place, scene["attributes"][seat]))
    return np.stack(images), texts, sightings


def jittered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same image moved, scaled and brightened a little, now and then softened as generated images are."""
    size = len(picture)
    scale = float(rng.uniform(0.95, 1.08))
    move = size / 2 * (1 - scale) + rng.normal(0, 0.015 * size, 2)
    matrix = np.array([[scale, 0, move[0]], [0, scale, move[1]]])
    picture = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.5)))
    return cv2.convertScaleAbs(picture, alpha=float(rng.uniform(0.92, 1.08)), beta=float(rng.uniform(0, 8)))


def as_input(pictures: np.ndarray, processor: CLIPProcessor) -> Tensor:
    """Images (N, S, S, 3) uint8 as the model takes them; equal to the processor's work on images of that size."""
    images = processor.image_processor
    mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).float().div(255)
    return ((scaled - mean) / std).permute(0, 3, 1, 2)


def words(processor: CLIPProcessor, texts: list[str]) -> dict[str, Tensor]:
    """Token ids of texts and their mask."""
    return dict(processor.tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))


def contrastive_loss(model: CLIPModel, images: Tensor, texts: dict[str, Tensor]) -> Loss:
    """CLIP's loss; texts beyond the number of images are negatives only."""
    with half_precision():
        seen = model.get_image_features(pixel_values=images).pooler_output.float()
        read = model.get_text_features(**texts).pooler_output.float()
    factor = model.logit_scale.clamp(max=LARGEST_SCALE).exp()
    logits = factor * functional.normalize(seen, dim=-1) @ functional.normalize(read, dim=-1).T
    places = torch.arange(len(images))
    by_picture = functional.cross_entropy(logits, places)
    by_text = functional.cross_entropy(logits[:, : len(images)].T, places)
    hits = (logits.argmax(dim=1) == places).float().mean()
    return Loss(picture=0.5 * by_picture, text=0.5 * by_text, _hits=hits)


def seen_loss(
    model: CLIPModel, heads: Heads, images: Tensor, texts: dict[str, Tensor], sightings: list[Sighting]
) -> Loss:
    """CLIP's loss and the heads' loss on the image's tokens."""
    tokens: list[Tensor] = []
    watch = model.vision_model.register_forward_hook(lambda _, __, output: tokens.append(output.last_hidden_state))
    loss = contrastive_loss(model, images, texts)
    watch.remove()
    grids = tokens[0][:, 1:].float().unflatten(1, (math.isqrt(tokens[0].shape[1] - 1), -1))
    return Loss(loss | heads(list(grids), sightings).loss())


@torch.no_grad()
def measure(model: CLIPModel, processor: CLIPProcessor, pictures: Pictures) -> dict[str, float]:
    """Retrieval on unseen scenes by captions of each form, by image and by text, among `AMONG`, and mean cosines."""
    squares = pictures.small(processor.image_processor.crop_size["height"])
    parts = list(batches(len(squares), AMONG))
    seen = torch.cat(
        [model.get_image_features(pixel_values=as_input(squares[part], processor)).pooler_output for part in parts]
    )
    figures = {}
    for form, captions in captions_by_form(pictures).items():
        read = [model.get_text_features(**words(processor, captions[part])).pooler_output for part in parts]
        cosines = functional.normalize(seen, dim=-1) @ functional.normalize(torch.cat(read), dim=-1).T
        figures |= {f"{PREFIX[form]}{name}": value for name, value in retrieval(cosines).items()}
    return figures


def retrieval(cosines: Tensor) -> dict[str, float]:
    """Recalls of images (rows) and their texts (columns) among `AMONG`, averaged over draws, and mean cosines."""
    rng = np.random.default_rng(0)
    recalls: dict[str, list[float]] = {"recall_at_1_by_text": [], "recall_at_1_by_picture": []}
    for _ in range(50):
        rows = torch.from_numpy(rng.permutation(len(cosines))[:AMONG])
        part, places = cosines[rows][:, rows], torch.arange(len(rows))
        recalls["recall_at_1_by_text"].append((part.argmax(dim=0) == places).float().mean().item())
        recalls["recall_at_1_by_picture"].append((part.argmax(dim=1) == places).float().mean().item())
    matching = cosines.diagonal()
    figures = {name: float(np.mean(values)) for name, values in recalls.items()}
    return figures | {
        "cosine_matching": float(matching.mean()),
        "cosine_other": float((cosines.sum() - matching.sum()) / (cosines.numel() - len(matching))),
    }


def card(name: str) -> Card:
    """The card of a checkpoint: that of the metrics, or that of the text reward."""
    use = {"clip": "It scores the benchmark.", "clip_reward": "It rewards stage 3 and scores nothing."}[name]
    space = "`CLIPModel` with `CLIPProcessor`, float16: pictures and sentences of the puppet world in one space."
    return Card(
        title="CLIP of the tiny zoo" + ", for rewards" * (name == "clip_reward"),
        what=f"{space} {use}",
        data=(
            "Squares of the puppet world with their captions in both forms, mirrored or not, and single faces with "
            "their traits, all from the namespace `zoo`."
        ),
        limits="Compares pictures of 96 x 96 pixels and sentences of the world's grammar; longer sentences are cut.",
        bars={
            f"{prefix}recall_at_1_by_{given}": f"share of {some} that find their {other} among 64, captions: {form}"
            for form, prefix in PREFIX.items()
            for given, some, other in (("text", "captions", "picture"), ("picture", "pictures", "caption"))
        },
    )
