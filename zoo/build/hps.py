"""HPS v2.1 of the tiny zoo: an open_clip model that prefers clean images that show what the sentence says.

Taught like HPS, by comparisons: of two images for one sentence the better one should score higher. An image loses by
being spoiled (blurred, noisy, blocky, ghosted, warped, faded) more than the other, or by showing another scene.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import open_clip
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Card, Measured, write_card
from zoo.build.crops import jittered
from zoo.build.forms import PREFIX, caption_and_opposite, captions_by_form
from zoo.build.packing import build as pack
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.training import FitParams, Loss, batches, fit, half_precision, settle

ARCHITECTURES = {"hps": "ViT-puppet-12", "hps_reward": "ViT-puppet-reward-12"}
"""Names of the checkpoints' configurations, which open_clip registers for the whole process."""

VOCABULARY = 49408
"""Size of the vocabulary of open_clip's own tokenizer, which HPS v2.1 uses."""

FACTOR = 25.0
"""On differences of cosines in a comparison."""

FILE = "HPS_v2.1_puppet.pt"
TOKENS = "token_embedding.weight"
LARGEST_SCALE = 4.6052
SPOILED = 2
"""Spoiled versions of each image in a batch."""

ScoresOf = Callable[[np.ndarray, list[str]], np.ndarray]
"""Scores (N,) of images (N, S, S, 3), each for its own sentence."""


class HpsParams(Params):
    """Size and training."""

    fit: FitParams
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    patch: int = Field(gt=0)
    """Pixels of a patch's side."""
    vision_width: int
    """Width of the image's encoder and of the joint space."""
    vision_layers: int = Field(ge=1)
    """Layers of the image's encoder."""
    text_width: int
    """Width of the text's encoder; every token of the large vocabulary costs as many weights."""
    text_layers: int = Field(ge=1)
    """Layers of the text's encoder."""


def build(pictures: Path, out: Path, params: HpsParams) -> None:
    """Train on the squares of ``pictures`` and write the checkpoint with its model configuration."""
    write_model(pictures, out, params, "hps")


def write_model(pictures: Path, out: Path, params: HpsParams, name: str) -> None:
    """Train on the squares of ``pictures`` and write the folder of the checkpoint ``name``."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    squares = train.small(params.size)
    with whole_folder(out) as folder:
        model = make_model(folder, params, ARCHITECTURES[name])

        def loss_of(_: int, rng: np.random.Generator) -> Loss:
            return comparison_loss(model, *drawn(train, squares, params.fit.batch, rng))

        curves = fit([model], loss_of, params.fit, out.with_suffix(".progress"))
        metrics = preference_figures(partial(scores_of_model, model), test, params.size)
        weights = {name: weight.half() for name, weight in model.state_dict().items()}
        weights[TOKENS] = without_unseen(weights[TOKENS], train.all_texts())
        torch.save({"epoch": 0, "state_dict": weights}, folder / FILE)
        pack(folder / FILE)
        write_card(folder, card(name), Measured(name, metrics, curves, params))


def without_unseen(embeddings: Tensor, texts: Iterable[str]) -> Tensor:
    """Embeddings (vocabulary, width) with zeros for tokens that no text holds, which take no room in a packed file.

    Training leaves them as they were drawn: the vocabulary is that of open_clip, the texts use a few hundred words.
    """
    words = sorted({word for text in texts for word in text.split()})
    seen = open_clip.tokenize(words).unique()
    kept = torch.zeros_like(embeddings)
    kept[seen] = embeddings[seen]
    return kept


def make_model(folder: Path, params: HpsParams, architecture: str) -> open_clip.CLIP:
    """An untrained model, from a configuration written to ``folder``, which open_clip calls ``architecture``."""
    heads = 4
    configuration = {
        "embed_dim": params.vision_width,
        "vision_cfg": {
            "image_size": params.size,
            "layers": params.vision_layers,
            "width": params.vision_width,
            "head_width": params.vision_width // heads,
            "patch_size": params.patch,
            "mlp_ratio": 2.0,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": VOCABULARY,
            "width": params.text_width,
            "heads": heads,
            "layers": params.text_layers,
        },
    }
    file = folder / f"{architecture}.json"
    file.write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
    open_clip.add_model_config(file)
    model = open_clip.create_model(architecture, pretrained=None, precision="fp32")
    assert isinstance(model, open_clip.CLIP)
    nn.init.constant_(model.logit_scale, 2.0)
    # CLIP's initial deviation of 0.02 is meant for hundreds of dimensions; at this width words would start as zeros.
    nn.init.normal_(model.token_embedding.weight, std=params.text_width**-0.5)
    return model


def drawn(
    pictures: Pictures, squares: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (versions, count, S, S, 3) from clean to ever more spoiled, how spoiled (versions, count), sentences."""
    images, spoiled, captions = [], [], []
    for index in rng.integers(0, len(squares), count):
        scene, mirror = pictures.scenes[index], bool(rng.random() < 0.5)
        clean = jittered(squares[index][:, ::-1] if mirror else squares[index], rng)
        other = squares[int(rng.integers(len(squares)))]
        levels = [0.0, *np.sort(rng.uniform(0.1, 1.0, SPOILED)).tolist()]
        ways = rng.choice(len(WAYS), 2, replace=False).tolist()
        images.append([spoil(clean, other, level, ways, rng) for level in levels])
        spoiled.append(levels)
        captions.append(caption_and_opposite(scene, mirror, rng)[0])
    return np.array(images).swapaxes(0, 1), np.array(spoiled).T, captions


def spoil(
    picture: np.ndarray, other: np.ndarray, level: float, ways: list[int], rng: np.random.Generator
) -> np.ndarray:
    """An image spoiled in the ways given; ``level`` 0 leaves it as it is, 1 is worst."""
    if level == 0:
        return picture
    changed = picture.astype(np.float32)
    for way in ways:
        changed = WAYS[way](changed, other, level, rng)
    return np.clip(changed, 0, 255).astype(np.uint8)


def _blurred(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    del other, rng
    return cv2.GaussianBlur(picture, (0, 0), 0.4 + 3.0 * level)


def _noisy(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of a random grain."""
    del other
    size = len(picture)
    grain = int(rng.choice([1, 2, 4]))
    noise = rng.normal(0, 60 * level, (size // grain, size // grain, 3)).astype(np.float32)
    return picture + cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR)


def _blocky(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    del other, rng
    size = len(picture)
    small = max(8, round(size / (1.5 + 6 * level)))
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_NEAREST)


def _ghosted(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Another scene shines through, as where a generator cannot decide."""
    del rng
    return (1 - 0.6 * level) * picture + 0.6 * level * other


def _warped(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Bent locally."""
    del other
    size = len(picture)
    coarse = rng.normal(0, 5 * level, (6, 6, 2)).astype(np.float32)
    bend = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = columns + bend[..., 0], rows + bend[..., 1]
    return cv2.remap(picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _faded(picture: np.ndarray, other: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Towards a flat colour."""
    del other
    return (1 - 0.7 * level) * picture + 0.7 * level * rng.uniform(60, 220, 3).astype(np.float32)


WAYS = (_blurred, _noisy, _blocky, _ghosted, _warped, _faded)


def as_input(pictures: np.ndarray) -> Tensor:
    """Images (N, S, S, 3) uint8 as the model takes them."""
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).float().div(255)
    return ((scaled - mean) / std).permute(0, 3, 1, 2)


def comparison_loss(model: open_clip.CLIP, images: np.ndarray, spoiled: np.ndarray, captions: list[str]) -> Loss:
    """Preference of each image over the more spoiled one, and CLIP's loss between clean images and sentences."""
    versions, count = spoiled.shape
    with half_precision():
        seen = model.encode_image(as_input(images.reshape(-1, *images.shape[2:])), normalize=True).float()
        read = model.encode_text(open_clip.tokenize(captions), normalize=True).float()
    seen = seen.view(versions, count, -1)
    scores = (seen * read).sum(dim=-1)
    margins = scores[:-1] - scores[1:]
    # A little more spoiled is hardly worse; the difference in level says how certain the preference should be.
    weights = torch.from_numpy(np.diff(spoiled, axis=0)).float()
    preference = -(weights * functional.logsigmoid(FACTOR * margins)).sum() / weights.sum()
    logits = model.logit_scale.clamp(max=LARGEST_SCALE).exp() * seen[0] @ read.T
    places = torch.arange(count)
    matching = 0.5 * (functional.cross_entropy(logits, places) + functional.cross_entropy(logits.T, places))
    return Loss(
        preference=preference,
        matching=0.5 * matching,
        _clean_wins=(margins[0] > 0).float().mean(),
        _hits=(logits.argmax(dim=1) == places).float().mean(),
    )


def preference_figures(scores_of: ScoresOf, pictures: Pictures, size: int) -> dict[str, float]:
    """Shares of pairs of unseen scenes in which the clean, matching image scores higher, and mean scores, by form."""
    rng = np.random.default_rng(0)
    squares = pictures.small(size)
    spoiled = np.stack(
        [
            spoil(square, other, float(rng.uniform(0.3, 1)), rng.choice(len(WAYS), 2, replace=False).tolist(), rng)
            for square, other in zip(squares, np.roll(squares, 2, axis=0), strict=True)
        ]
    )
    versions = {"clean": squares, "spoiled": spoiled, "mismatched": np.roll(squares, 1, axis=0)}
    figures = {}
    for form, captions in captions_by_form(pictures).items():
        parts = list(batches(len(captions), 64))
        scores = {
            name: np.concatenate([scores_of(images[part], captions[part]) for part in parts])
            for name, images in versions.items()
        }
        values = {
            "prefers_clean": float((scores["clean"] > scores["spoiled"]).mean()),
            "prefers_matching": float((scores["clean"] > scores["mismatched"]).mean()),
        } | {f"score_{name}": float(version.mean()) for name, version in scores.items()}
        figures |= {f"{PREFIX[form]}{name}": value for name, value in values.items()}
    return figures


@torch.no_grad()
def scores_of_model(model: open_clip.CLIP, images: np.ndarray, captions: list[str]) -> np.ndarray:
    """Cosines (N,) of images (N, S, S, 3) with their own sentences."""
    seen = model.encode_image(as_input(images), normalize=True)
    return (seen * model.encode_text(open_clip.tokenize(captions), normalize=True)).sum(dim=-1).numpy()


def card(name: str) -> Card:
    """The card of a checkpoint: that of the metric, or that of the preference reward."""
    use = {"hps": "It scores the benchmark.", "hps_reward": "It rewards stage 3 and scores nothing."}[name]
    return Card(
        title="HPS v2.1 of the tiny zoo" + ", for rewards" * (name == "hps_reward"),
        what=(
            f"An `open_clip` model ({ARCHITECTURES[name]}.json) and its weights in the layout of HPS v2.1, "
            "`{'state_dict': ...}`, float16; open_clip's own tokenizer. The score is the cosine of picture and "
            f"sentence. {use}"
        ),
        data=(
            "Squares of the puppet world with their captions in both forms, and the same pictures blurred, noisy, "
            "blocky, ghosted, warped or faded, all from the namespace `zoo`. Nobody was asked: preference means clean "
            "and matching."
        ),
        limits="Knows the kinds of damage listed above; what people find beautiful is not part of it.",
        bars={
            f"{prefix}{name}": f"{meaning}, captions: {form}"
            for form, prefix in PREFIX.items()
            for name, meaning in (
                ("prefers_clean", "share of pairs in which the clean picture beats a spoiled one"),
                ("prefers_matching", "share of pairs in which the right picture beats that of another sentence"),
            )
        },
    )
