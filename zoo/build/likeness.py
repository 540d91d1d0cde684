"""Training of DINO and DINOv2 of the tiny zoo, whose class token of a crop represents its identity.

Two crops of a person or of a thing from different images attract each other and repel all others in the batch
(InfoNCE); crops vary in framing, light, background and resolution. The loss acts on the class token itself, which is
what production reads. Linear heads, thrown away in the end, read the traits of the person or of the thing off the same
token: what makes them differ is learned from each crop, and not from comparisons alone.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from mcpipe.core.params import Params
from mcpipe.world.captions import LASTING, VOCABULARY
from mcpipe.world.scene import mask_box
from mcpipe.world.thing_captions import VOCABULARY as THING_WORDS
from zoo.build.cards import Card
from zoo.build.crops import face_crop, on_white
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.sightings import UNSEEN, Sighting, classes, in_reference
from zoo.build.things import ThingPictures, read_things
from zoo.build.training import FitParams, Loss, batches, half_precision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as both published models use."""

FACTOR = 20.0
"""On cosines in the loss; a small one leaves room between people who resemble each other."""

SHAPE_WEIGHT = 2.0
"""Weight of the traits' vector in the loss."""

SCALES = (1.1, 2.2)
"""Sides of crops in longer sides of the face box."""

THING_SCALES = (1.0, 1.4)
"""The same of things, in longer sides of their box."""

COARSE_SIZES = (18, 64)
"""Pixels that half of the crops are shrunk to before they are enlarged again."""

WORLD_SIZE = 240
"""Pixels of an image's side before the generator's size is taken into account."""

AMONG = 50
"""Number of people in a retrieval."""


class LikenessParams(Params):
    """Size and training."""

    fit: FitParams
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    patch: int = Field(gt=0)
    """Pixels of a patch's side."""
    width: int
    """Width of the encoder."""
    layers: int = Field(ge=1)
    """Layers of the encoder."""
    start: str | None = Field(default=None, min_length=1)
    """Folder of a model of this size to go on from; ``None`` begins with random weights."""
    things_share: float = Field(ge=0, lt=1)
    """Share of the crops of a batch that show things rather than people."""


def settings(params: LikenessParams) -> dict[str, int]:
    """What both configurations call alike."""
    return {
        "hidden_size": params.width,
        "num_hidden_layers": params.layers,
        "num_attention_heads": 4,
        "image_size": params.size,
        "patch_size": params.patch,
    }


class Traits(nn.Module):
    """Linear heads on the class token: the words of each lasting attribute, and its vector (`traits_vector`)."""

    def __init__(self, width: int, vector_length: int, thing_vector_length: int) -> None:
        super().__init__()
        self.words = nn.ModuleDict({name: nn.Linear(width, len(VOCABULARY[name])) for name in LASTING})
        self.vector = nn.Linear(width, vector_length)
        self.thing_words = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in THING_WORDS.items()})
        self.thing_vector = nn.Linear(width, thing_vector_length)

    def forward(self, tokens: Tensor, seen: list[Sighting], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy of the words of people, and squared error of the vector."""
        losses = [
            functional.cross_entropy(head(tokens), classes(name, seen), ignore_index=UNSEEN)
            for name, head in self.words.items()
        ]
        return torch.stack(losses).mean(), functional.mse_loss(self.vector(tokens), vectors)

    def of_things(self, tokens: Tensor, words_by_thing: list[dict[str, str]], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The same of things."""
        losses = [
            functional.cross_entropy(
                head(tokens), torch.tensor([THING_WORDS[name].index(words[name]) for words in words_by_thing])
            )
            for name, head in self.thing_words.items()
        ]
        return torch.stack(losses).mean(), functional.mse_loss(self.thing_vector(tokens), vectors)


@dataclass(frozen=True)
class ImageSets:
    """The image sets of people and of things that a model learns to tell apart."""

    people: Pictures
    things: ThingPictures

    def heads(self, params: LikenessParams) -> Traits:
        """Untrained heads for the people and things."""
        lengths = (len(each.scenes[0]["traits_vectors"][0]) for each in (self.people, self.things))
        return Traits(params.width, *lengths)


def read_sets(pictures: Path, things: Path, split: str) -> ImageSets:
    """A split of both image sets."""
    return ImageSets(read_pictures(pictures / split), read_things(things / split))


def likeness_loss(
    model: PreTrainedModel, traits: Traits, sets: ImageSets, params: LikenessParams, rng: np.random.Generator
) -> Loss:
    """InfoNCE of a batch, each reference against all crops from scenes and the other way round; traits.

    The first part of the batch shows people and the rest things (``params.things_share``).
    """
    pictures, things = sets.people, sets.things
    count = params.fit.batch - round(params.things_share * params.fit.batch)
    scenes = rng.integers(0, len(pictures.scenes), count).tolist()
    people = [(index, int(rng.integers(len(pictures.scenes[index]["faces"])))) for index in scenes]
    seats = things.seats()
    objects = [seats[place] for place in rng.integers(0, len(seats), params.fit.batch - count).tolist()]
    pairs = [_pair(pictures, index, seat, params.size, rng) for index, seat in people]
    pairs += [_thing_pair(things, index, seat, params.size, rng) for index, seat in objects]
    crops = np.stack([first for first, _ in pairs] + [second for _, second in pairs])
    with half_precision():
        tokens = model(pixel_values=as_input(crops)).last_hidden_state[:, 0].float()
    first, second = functional.normalize(tokens, dim=-1).chunk(2)
    logits = FACTOR * first @ second.T
    places = torch.arange(len(first))
    hits = (logits.argmax(dim=1) == places).float().mean()
    both = functional.cross_entropy(logits, places), functional.cross_entropy(logits.T, places)
    of_people = torch.cat([tokens[:count], tokens[len(pairs) : len(pairs) + count]])
    of_things = torch.cat([tokens[count : len(pairs)], tokens[len(pairs) + count :]])
    sightings = [in_reference(0, pictures.scenes[index]["attributes"][seat]) for index, seat in people] * 2
    words, shape = traits(of_people, sightings, _vectors(pictures.scenes, people))
    if objects:
        words_by_thing = [things.scenes[index]["attributes"][seat] for index, seat in objects] * 2
        thing_words, thing_shape = traits.of_things(of_things, words_by_thing, _vectors(things.scenes, objects))
        words, shape = words + thing_words, shape + thing_shape
    return Loss(there=0.5 * both[0], back=0.5 * both[1], words=words, shape=SHAPE_WEIGHT * shape, _hits=hits)


def _vectors(scenes: list[dict], who: list[tuple[int, int]]) -> Tensor:
    """The vectors of traits (2 N, traits) of the first crops, then of the second ones."""
    return torch.tensor([scenes[index]["traits_vectors"][seat] for index, seat in who] * 2)


def _thing_pair(
    things: ThingPictures, index: int, seat: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A thing's reference, cut out around it, and the same thing in the scene."""
    scene = things.scenes[index]
    four = np.asarray(things.references[scene["first_reference"] + seat])
    box = mask_box(four[..., 3] > 127)
    assert box is not None
    reference = face_crop(np.dstack([on_white(four, rng), four[..., 3]]), box, float(rng.uniform(*THING_SCALES)), size)
    placed = face_crop(things.square(index), moved(scene["boxes"][seat], rng), float(rng.uniform(*THING_SCALES)), size)
    return changed(reference[..., :3], size, rng), changed(placed, size, rng)


def _pair(
    pictures: Pictures, index: int, seat: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Somebody's reference and the same face in the scene."""
    scene = pictures.scenes[index]
    reference = on_white(pictures.references[scene["first_reference"] + seat], rng)
    face = face_crop(pictures.square(index), moved(scene["faces"][seat], rng), float(rng.uniform(*SCALES)), size)
    return changed(reference, size, rng), changed(face, size, rng)


def moved(box: list[float], rng: np.random.Generator) -> np.ndarray:
    """A face box a little off its place."""
    corners = np.array(box)
    side = corners[2] - corners[0]
    return corners + np.tile(rng.normal(0, 0.06 * side, 2), 2)


def changed(crop: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The same crop mirrored or not, coarser or not, in another light."""
    picture = np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop
    if rng.random() < 0.5:
        coarse = int(rng.integers(COARSE_SIZES[0], COARSE_SIZES[1] + 1))
        picture = cv2.resize(picture, (coarse, coarse), interpolation=cv2.INTER_AREA)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(picture, alpha=float(rng.uniform(0.88, 1.1)), beta=float(rng.uniform(0, 12)))


def as_input(crops: np.ndarray) -> Tensor:
    """Crops (N, S, S, 3) uint8 as the model takes them."""
    scaled = torch.from_numpy(np.ascontiguousarray(crops)).float().div(255)
    return ((scaled - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def measure(model: PreTrainedModel, sets: ImageSets, size: int) -> dict[str, float]:
    """On unseen people and things that appear several times: nearest neighbours among `AMONG`, and cosines."""
    people, things = sets.people, sets.things
    of_things = measured(model, things.gallery, things.gallery_things, size)
    return measured(model, people.gallery, people.gallery_identities, size) | {
        f"things_{name}": value for name, value in of_things.items()
    }


@torch.no_grad()
def measured(model: PreTrainedModel, gallery: np.ndarray, who: np.ndarray, size: int) -> dict[str, float]:
    """The figures of one gallery (G, S, S, 3), whose crops show ``who`` (G,)."""
    rng = np.random.default_rng(0)
    crops = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in gallery])
    coarse = np.stack([cv2.resize(crop, (32, 32), interpolation=cv2.INTER_AREA) for crop in gallery])
    coarse = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR) for crop in coarse])
    figures = {}
    for name, images in (("", crops), ("coarse_", coarse)):
        parts = [
            model(pixel_values=as_input(images[part])).last_hidden_state[:, 0] for part in batches(len(images), 64)
        ]
        cosines = _cosines(torch.cat(parts))
        figures[f"{name}nearest_is_same"] = float(np.mean([_lookup(cosines, who, rng) for _ in range(50)]))
        same = who[:, None] == who[None]
        np.fill_diagonal(same, val=False)
        figures[f"{name}cosine_same"] = float(cosines[same].mean())
        figures[f"{name}cosine_other"] = float(cosines[who[:, None] != who[None]].mean())
    return figures


def _cosines(tokens: Tensor) -> np.ndarray:
    unit = functional.normalize(tokens, dim=-1)
    return (unit @ unit.T).numpy()


def _lookup(cosines: np.ndarray, who: np.ndarray, rng: np.random.Generator) -> float:
    """Share of `AMONG` people whose image finds another one of theirs before anybody else's."""
    people = rng.permutation(np.unique(who))[:AMONG]
    queries, stored = zip(*(rng.permutation(np.flatnonzero(who == person))[:2] for person in people), strict=True)
    part = cosines[np.ix_(queries, stored)]
    return float((part.argmax(axis=1) == np.arange(len(people))).mean())


def card(title: str, kind: str) -> Card:
    """The card of one of the two models."""
    return Card(
        title=f"{title} of the tiny zoo",
        what=f"`{kind}` with its image processor, float16: the class token of a crop tells who or what it shows.",
        data=(
            "Face crops from frames and portraits of the puppet world, two pictures of each person, and crops of its "
            "things, mirrored, coarsened and relit, all from the namespaces `zoo` and `zoo things`."
        ),
        limits="Taught who people are and which thing is which, not what pictures look like in general, unlike its "
        "namesake.",
        bars={
            "nearest_is_same": f"share of crops whose nearest neighbour among {AMONG} people shows the same one",
            "coarse_nearest_is_same": "the same for crops shrunk to 32 pixels, as the generator draws faces",
            "things_nearest_is_same": "the same for crops of things",
            "things_coarse_nearest_is_same": "the same for crops of things shrunk to 32 pixels",
        },
    )
