"""CLIP of the tiny zoo: `CLIPModel` with processor, contrastive on scenes and on single faces.

Captions have both forms (`zoo.build.forms`). Each batch has the mirrored captions as further negatives, where sides are
mentioned: who stands left and who right is part of what is said. Descriptions of faces have negatives that differ in
one phrase (as in NegCLIP, arXiv:2210.01936), because leaks are read from such differences (`mcpipe.bench.leaks`). Heads
predict the visible attributes from the image's tokens during training (`zoo.build.sightings`).
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

from mcpipe.bench.leaks import Phrases, described, leaked_descriptions
from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Card, Measured, write_card
from zoo.build.clip_input import LENGTH, as_input, words
from zoo.build.clip_scores import THINGS, measure, measure_things
from zoo.build.crops import SQUARE, face_crop, jittered, on_white
from zoo.build.forms import PREFIX, caption_and_opposite
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.sightings import Heads, Sighting, in_reference, in_scene
from zoo.build.thing_pairs import thing_pairs, thing_texts
from zoo.build.things import read_things
from zoo.build.tokenizers import clip_tokenizer
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

VOCABULARY = 600
FACE_SHARE = 0.35
"""Batches of single faces; the pipeline compares cut-outs with references and reads leaks off faces in images."""

THING_SHARE = 0.2
"""Batches of things, alone and in scenes."""

IN_SCENE_SHARE = 0.6
"""Share of the single faces that are cut from scenes; the others are references."""

FACE_SCALES = (1.3, 1.7)
"""Sides of faces cut from scenes in longer sides of the face's box, around `mcpipe.curate.samples.FACE_MARGIN`."""

NUM_NEGATIVES = 3
"""Descriptions with one wrong phrase per face."""

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


def build(pictures: Path, things: Path, out: Path, params: ClipParams) -> None:
    """Train on the squares of ``pictures`` and of ``things`` and write the model's folder."""
    write_model(pictures, things, out, params, "clip")


def write_model(pictures: Path, things: Path, out: Path, params: ClipParams, name: str) -> None:
    """Train on the squares of ``pictures`` and of ``things``; write the folder of the checkpoint ``name``."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    objects, unseen = read_things(things / "train"), read_things(things / "test")
    processor = make_processor([*train.all_texts(), *thing_texts(objects)], params.size)
    model = make_model(processor, params)
    squares, heads = train.small(params.size), Heads(params.width)
    object_squares = objects.small(params.size)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        kind = rng.random()
        if kind < THING_SHARE:
            drawn, right, wrong = thing_pairs(objects, object_squares, params.fit.batch, rng)
            images = np.stack([jittered(image, rng) for image in drawn])
            return contrastive_loss(model, as_input(images, processor), words(processor, right + wrong))
        if kind < THING_SHARE + FACE_SHARE:
            images, texts, sightings = _faces(train, squares, params, rng)
        else:
            images, texts, sightings = _scenes(train, squares, params.fit.batch, rng)
        return seen_loss(model, heads, as_input(images, processor), words(processor, texts), sightings)

    curves = fit([model, heads], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, processor, test) | measure_things(model, processor, unseen)
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, card(name), Measured(name, metrics, curves, params))


def make_processor(texts: list[str], size: int) -> CLIPProcessor:
    """Tokenizer learnt from the sentences, and CLIP's image processing at another size."""
    tokenizer = clip_tokenizer(texts, VOCABULARY, LENGTH)
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
    pictures: Pictures, squares: np.ndarray, params: ClipParams, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], list[Sighting]]:
    """Single faces, their descriptions, followed by descriptions with one wrong phrase each, and sightings."""
    images, people, sightings = [], [], []
    for place, index in enumerate(rng.integers(0, len(pictures.scenes), params.fit.batch)):
        scene = pictures.scenes[index]
        seat = int(rng.integers(len(scene["traits"])))
        if rng.random() < IN_SCENE_SHARE:
            box = np.array(scene["faces"][seat]) * squares.shape[1] / SQUARE
            crop = face_crop(squares[index], box, float(rng.uniform(*FACE_SCALES)), params.size)
        else:
            crop = on_white(pictures.references[scene["first_reference"] + seat], rng)
            crop = cv2.resize(crop, (params.size, params.size), interpolation=cv2.INTER_LINEAR)
        images.append(jittered(crop[:, ::-1] if rng.random() < 0.5 else crop, rng))
        people.append(tuple(scene["phrases"][seat]))
        sightings.append(in_reference(place, scene["attributes"][seat]))
    return np.stack(images), [*map(described, people), *_wrong(people, rng)], sightings


def _wrong(people: list[Phrases], rng: np.random.Generator) -> list[str]:
    """Descriptions of everybody with one phrase of somebody else of the batch."""
    texts = []
    for own in people:
        others = [people[number] for number in rng.integers(0, len(people), NUM_NEGATIVES)]
        leaked = [list(leaked_descriptions(own, [other])) for other in others]
        texts += [candidates[rng.integers(len(candidates))] for candidates in leaked if candidates]
    return texts


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


def card(name: str) -> Card:
    """The card of a checkpoint: that of the metrics, or that of the text reward."""
    use = {"clip": "It scores the benchmark.", "clip_reward": "It rewards stage 3 and scores nothing."}[name]
    space = "`CLIPModel` with `CLIPProcessor`, float16: pictures and sentences of the puppet world in one space."
    return Card(
        title="CLIP of the tiny zoo" + ", for rewards" * (name == "clip_reward"),
        what=f"{space} {use}",
        data=(
            "Squares of the puppet world with their captions in both forms, mirrored or not, and single faces with "
            "their traits, all from the namespace `zoo`; scenes of things and single things from `zoo things`."
        ),
        limits="Compares pictures of 96 x 96 pixels and sentences of the world's grammar; longer sentences are cut.",
        bars={
            f"{prefix}recall_at_1_by_{given}": f"share of {some} that find their {other} among 64, captions: {form}"
            for form, prefix in (PREFIX | {"things": THINGS}).items()
            for given, some, other in (("text", "captions", "picture"), ("picture", "pictures", "caption"))
        },
    )
