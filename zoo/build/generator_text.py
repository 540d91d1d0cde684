"""The generator's text encoders, taught what captions say before anything is drawn.

Squared errors of images teach words slowly: whose shirt is red is one small patch among many. So the encoders first
learn to predict every attribute of everybody from left to right, and the opening of the caption (how many people,
where): T5's tokens by a query per seat and attribute, CLIP's pooled vector by linear heads. The heads are thrown away.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.world.captions import LASTING, VOCABULARY
from zoo.build.cards import Measured, write_measured
from zoo.build.crowds import CROWD
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.sightings import UNSEEN
from zoo.build.tokenizers import clip_tokenizer, t5_tokenizer
from zoo.build.training import FitParams, Loss, batches, fit, settle

CLIP_LENGTH = 77
T5_LENGTH = 64
CLIP_WIDTH, T5_WIDTH = 64, 96
CLIP_VOCABULARY = 600
PORTRAITS_SHARE = 0.1
"""Part of the captions that describe a single face."""


class GeneratorTextParams(Params):
    """Training of the text encoders."""

    fit: FitParams


class Text(nn.Module):
    """The two text encoders, from token ids to the transformer's inputs."""

    def __init__(self, clip: CLIPTextModel, t5: T5EncoderModel) -> None:
        super().__init__()
        self.clip, self.t5 = clip, t5

    def forward(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, 64, 96) and the pooled vector (B, 64)."""
        return self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output


class Listener(nn.Module):
    """Heads that predict the caption's content: every attribute of every seat, and the opening."""

    def __init__(self, openings: int) -> None:
        super().__init__()
        self.sizes = {
            **{f"{seat} {name}": len(values) for seat in range(CROWD) for name, values in VOCABULARY.items()},
            "opening": openings,
        }
        self.norm, self.key = nn.LayerNorm(T5_WIDTH), nn.Linear(T5_WIDTH, T5_WIDTH)
        self.query = nn.Parameter(0.02 * torch.randn(len(self.sizes), T5_WIDTH))
        self.of_tokens = nn.ModuleList(nn.Linear(T5_WIDTH, size) for size in self.sizes.values())
        self.of_pooled = nn.ModuleList(nn.Linear(CLIP_WIDTH, size) for size in self.sizes.values())

    def forward(self, embeddings: Tensor, pooled: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of everything in `sizes`, from the tokens and from the pooled vector."""
        tokens = self.norm(embeddings)
        shares = torch.einsum("bld,ad->bal", self.key(tokens), self.query).div(T5_WIDTH**0.5).softmax(dim=-1)
        attended = torch.einsum("bal,bld->bad", shares, tokens)
        by_tokens = [head(attended[:, place]) for place, head in enumerate(self.of_tokens)]
        return by_tokens, [head(pooled) for head in self.of_pooled]


class Sayings:
    """Captions as ids, with the classes of all they say."""

    def __init__(self, pictures: Pictures, tokenizers: tuple[CLIPTokenizer, T5TokenizerFast]) -> None:
        """Every caption in both forms, as it is and mirrored, and every face's traits as a portrait."""
        texts, people = [], []
        for scene in pictures.scenes:
            texts += [scene["caption"], scene["mirrored_caption"]]
            people += [scene["attributes"], scene["attributes"][::-1]]
            for text in (*scene.get("settings", ()), *scene.get("mirrored_settings", ())):
                texts.append(text)
                people.append(mentioned(text, scene))
        self.num_scenes = len(texts)
        for scene in pictures.scenes:
            texts += [portrait_caption(traits) for traits in scene["traits"]]
            people += [[{name: of[name] for name in LASTING}] for of in scene["attributes"]]
        self.openings = sorted({text.split(":")[0] for text in texts[: self.num_scenes]})
        self.ids = token_ids(tokenizers, texts)
        rows = zip(texts, people, strict=True)
        self.classes = torch.tensor([[*_classes(of), _opening(text, self.openings)] for text, of in rows])

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """Rows of a batch."""
        alone = rng.random(count) < PORTRAITS_SHARE
        portraits = rng.integers(self.num_scenes, len(self.classes), count)
        return torch.from_numpy(np.where(alone, portraits, rng.integers(0, self.num_scenes, count)))


def mentioned(text: str, scene: dict) -> list[dict[str, str]]:
    """The clothes of everybody in a caption in the form "scene", in the order of mention."""
    outfits = [person.partition(", wearing ")[2] for person in scene["people"]]
    people = []
    for part in text.partition(": ")[2].split("; "):
        seat = next(seat for seat, outfit in enumerate(outfits) if part.endswith(f"wearing {outfit}"))
        people.append({name: value for name, value in scene["attributes"][seat].items() if name not in LASTING})
    return people


def portrait_caption(traits: str) -> str:
    """The caption of a single face close by."""
    return f"a portrait of {traits}"


def _classes(people: Sequence[dict[str, str]]) -> list[int]:
    """The class of every attribute in every seat; hair that is not mentioned, and empty seats, have none."""
    classes = []
    for seat in range(CROWD):
        of = people[seat] if seat < len(people) else {}
        silent = "hair_colour" if of.get("hair_cut") == "bald" else ""
        visible = {name: value for name, value in of.items() if name != silent}
        classes += [values.index(visible[name]) if name in visible else UNSEEN for name, values in VOCABULARY.items()]
    return classes


def _opening(text: str, openings: Sequence[str]) -> int:
    start = text.split(":")[0]
    return openings.index(start) if start in openings else UNSEEN


def build(pictures: Path, out: Path, params: GeneratorTextParams) -> None:
    """Train on the captions of ``pictures`` and write encoders and tokenizers in `FluxPipeline`'s layout."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    words = make_tokenizers([*train.all_texts(), *map(portrait_caption, train.scenes[0]["traits"])])
    text, sayings = make_text(*words), Sayings(train, words)
    listener = Listener(len(sayings.openings))

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        return listening_loss(text, listener, sayings, sayings.draw(rng, params.fit.batch))

    curves = fit([text, listener], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(text, listener, Sayings(test, words))
    with whole_folder(out) as folder:
        text.clip.save_pretrained(folder / "text_encoder")
        text.t5.save_pretrained(folder / "text_encoder_2")
        words[0].save_pretrained(folder / "tokenizer")
        words[1].save_pretrained(folder / "tokenizer_2")
        write_measured(folder, Measured("generator_text", metrics, curves, params))


def read_text(folder: Path) -> tuple[Text, tuple[CLIPTokenizer, T5TokenizerFast]]:
    """Encoders and tokenizers that `build` wrote."""
    text = Text(
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32),
    )
    clip = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return text, (clip, T5TokenizerFast.from_pretrained(folder / "tokenizer_2"))


def make_tokenizers(texts: Sequence[str]) -> tuple[CLIPTokenizer, T5TokenizerFast]:
    """Tokenizers that know the world's words."""
    return clip_tokenizer(texts, CLIP_VOCABULARY, CLIP_LENGTH), t5_tokenizer(texts, T5_LENGTH)


def make_text(clip_words: CLIPTokenizer, t5_words: T5TokenizerFast) -> Text:
    """Untrained text encoders."""
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=CLIP_WIDTH,
            intermediate_size=2 * CLIP_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_LENGTH,
            projection_dim=CLIP_WIDTH,
            bos_token_id=clip_words.bos_token_id,
            eos_token_id=clip_words.eos_token_id,
            pad_token_id=clip_words.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_words),
            d_model=T5_WIDTH,
            d_kv=24,
            d_ff=2 * T5_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=t5_words.pad_token_id,
            eos_token_id=t5_words.eos_token_id,
            is_encoder_decoder=False,
        )
    )
    return Text(clip, t5)


def token_ids(tokenizers: tuple[CLIPTokenizer, T5TokenizerFast], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids of texts for both encoders, padded as `FluxPipeline` pads them."""
    clip, t5 = (
        words(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        for words, length in zip(tokenizers, (CLIP_LENGTH, T5_LENGTH), strict=True)
    )
    return clip, t5


def listening_loss(text: Text, listener: Listener, sayings: Sayings, rows: Tensor) -> Loss:
    """Mean cross entropy of all attributes, by the tokens and by the pooled vector."""
    by_tokens, by_pooled = listener(*text(*(ids[rows] for ids in sayings.ids)))
    return Loss(tokens=_entropy(by_tokens, sayings.classes[rows]), pooled=_entropy(by_pooled, sayings.classes[rows]))


def _entropy(guesses: list[Tensor], classes: Tensor) -> Tensor:
    labelled = [place for place in range(len(guesses)) if (classes[:, place] != UNSEEN).any()]
    losses = [functional.cross_entropy(guesses[place], classes[:, place], ignore_index=UNSEEN) for place in labelled]
    return torch.stack(losses).mean()


@torch.no_grad()
def measure(text: Text, listener: Listener, sayings: Sayings) -> dict[str, float]:
    """Share of correct predictions about captions of held-out scenes."""
    right: dict[str, list[Tensor]] = {"tokens_right": [], "pooled_right": []}
    for part in batches(sayings.num_scenes, 64):
        true = sayings.classes[part]
        for name, guesses in zip(right, listener(*text(*(ids[part] for ids in sayings.ids))), strict=True):
            best = torch.stack([guess.argmax(dim=-1) for guess in guesses], dim=1)
            right[name].append((best == true)[true != UNSEEN])
    return {name: torch.cat(hits).float().mean().item() for name, hits in right.items()}
