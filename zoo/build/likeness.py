"""Training of DINO and DINOv2 of the tiny zoo, whose class token of a crop represents its identity.

Two crops of a person from different images attract each other and repel those of everybody else in the batch
(InfoNCE); crops vary in framing, light, background and resolution. The loss acts on the class token itself, which is
what production reads. Linear heads, thrown away in the end, read the person's traits off the same token: what makes
people differ is learned from each crop, and not from comparisons alone.
"""

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from mcpipe.core.params import Params
from mcpipe.world.captions import LASTING, VOCABULARY
from zoo.build.cards import Card
from zoo.build.crops import face_crop, on_white
from zoo.build.pictures import Pictures
from zoo.build.sightings import UNSEEN, Sighting, classes, in_reference
from zoo.build.training import FitParams, Loss, batches, half_precision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as both published models use."""

FACTOR = 20.0
"""On cosines in the loss; a small one leaves room between people who resemble each other."""

SHAPE_WEIGHT = 2.0
"""Weight of the traits' vector in the loss."""

SCALES = (1.1, 2.2)
"""Sides of crops in longer sides of the face box."""

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

    def __init__(self, width: int, vector_length: int) -> None:
        super().__init__()
        self.words = nn.ModuleDict({name: nn.Linear(width, len(VOCABULARY[name])) for name in LASTING})
        self.vector = nn.Linear(width, vector_length)

    def forward(self, tokens: Tensor, seen: list[Sighting], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy of the words, and squared error of the vector."""
        losses = [
            functional.cross_entropy(head(tokens), classes(name, seen), ignore_index=UNSEEN)
            for name, head in self.words.items()
        ]
        return torch.stack(losses).mean(), functional.mse_loss(self.vector(tokens), vectors)


def make_traits(pictures: Pictures, params: LikenessParams) -> Traits:
    """Untrained heads for the people of ``pictures``."""
    return Traits(params.width, len(pictures.scenes[0]["traits_vectors"][0]))


def likeness_loss(
    model: PreTrainedModel, traits: Traits, pictures: Pictures, params: LikenessParams, rng: np.random.Generator
) -> Loss:
    """InfoNCE of a batch, each person's reference against all faces cut from scenes and the other way round; traits."""
    scenes = rng.integers(0, len(pictures.scenes), params.fit.batch).tolist()
    people = [(index, int(rng.integers(len(pictures.scenes[index]["faces"])))) for index in scenes]
    pairs = [_pair(pictures, index, seat, params.size, rng) for index, seat in people]
    crops = np.stack([first for first, _ in pairs] + [second for _, second in pairs])
    with half_precision():
        tokens = model(pixel_values=as_input(crops)).last_hidden_state[:, 0].float()
    first, second = functional.normalize(tokens, dim=-1).chunk(2)
    logits = FACTOR * first @ second.T
    places = torch.arange(len(first))
    hits = (logits.argmax(dim=1) == places).float().mean()
    both = functional.cross_entropy(logits, places), functional.cross_entropy(logits.T, places)
    sightings = [in_reference(0, pictures.scenes[index]["attributes"][seat]) for index, seat in people] * 2
    vectors = torch.tensor([pictures.scenes[index]["traits_vectors"][seat] for index, seat in people] * 2)
    words, shape = traits(tokens, sightings, vectors)
    return Loss(there=0.5 * both[0], back=0.5 * both[1], words=words, shape=SHAPE_WEIGHT * shape, _hits=hits)


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


@torch.no_grad()
def measure(model: PreTrainedModel, pictures: Pictures, size: int) -> dict[str, float]:
    """On unseen people who appear several times: nearest neighbours among `AMONG`, and cosines."""
    rng = np.random.default_rng(0)
    crops = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in pictures.gallery])
    coarse = np.stack([cv2.resize(crop, (32, 32), interpolation=cv2.INTER_AREA) for crop in pictures.gallery])
    coarse = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR) for crop in coarse])
    who = pictures.gallery_identities
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
        what=f"`{kind}` with its image processor, float16: the class token of a face crop tells who it shows.",
        data=(
            "Face crops from frames and portraits of the puppet world, two pictures of each person, mirrored, "
            "coarsened and relit, all from the namespace `zoo`."
        ),
        limits="Taught who people are, not what pictures look like in general, unlike its namesake.",
        bars={
            "nearest_is_same": f"share of crops whose nearest neighbour among {AMONG} people shows the same one",
            "coarse_nearest_is_same": "the same for crops shrunk to 32 pixels, as the generator draws faces",
        },
    )
