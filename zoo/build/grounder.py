"""The grounder: `Florence2ForConditionalGeneration` in the format of florence-community/Florence-2-base.

It learns the task of phrase grounding on pictures of things. Two linear heads, thrown away in the end, speed it up:
what every visual token shows before it met the phrase, and whether it belongs to the phrase afterwards.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BartConfig,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    RobertaTokenizer,
)
from transformers.modeling_outputs import BaseModelOutput

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.models.florence import BINS, Florence2
from mcpipe.world.thing_captions import VOCABULARY
from zoo.build.cards import Card, Measured, write_card
from zoo.build.grounder_data import SEEN_WORDS, UNSEEN, Grounded, draw
from zoo.build.grounder_scores import score
from zoo.build.phrases import sample_phrase
from zoo.build.things import read_things
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

logger = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as the published model uses."""

SPREAD = 12.0
"""Standard deviation, in bins, of the locations that count as right in training: 1.2 per cent of a side."""

SEEN_WEIGHT, FOUND_WEIGHT = 1.0, 2.0
"""Weights of the two heads' losses against the answer's."""

EMPTY_WEIGHT = 0.1
"""Weight of visual tokens without any thing in the second one."""

WORD_FACTOR = 3.0
"""On products of visual tokens and words in the first one."""

TOKENIZER = "tokenizer.json"
"""Rewritten without indentation, which takes a third of it, because of a thousand location tokens."""

PROMPT = "Locate the phrases in the caption: "
LONGEST = 256
"""Tokens of a prompt with its image, and of an answer."""

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""BART's, in its order but for the last one."""


class GrounderParams(Params):
    """Size and training."""

    fit: FitParams
    start: str | None = Field(default=None, min_length=1)
    """Folder of a grounder of this size to go on from; ``None`` begins with random weights."""
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    stride: int = Field(gt=0)
    """Pixels per visual token and direction; a multiple of two."""
    width: int = Field(gt=0)
    """Width of tokens; a multiple of three and of the number of heads."""
    layers: int = Field(ge=1)
    """Layers of the language model's encoder, and of its decoder."""
    vocabulary: int = Field(ge=256)
    """Byte pairs of the tokenizer, beside its special tokens."""

    @property
    def cells(self) -> int:
        """Visual tokens per side."""
        return self.size // self.stride


HEADS = 4
DATA = "Rendered pictures of things of the namespace `zoo things`, one to three at a time, with phrases of six kinds."
CARD = Card(
    title="Grounder of the tiny zoo",
    what="`Florence2ForConditionalGeneration` with its processor, float16: the boxes of what a phrase describes, "
    "by the task `<CAPTION_TO_PHRASE_GROUNDING>`.",
    data=DATA,
    limits="One phrase at a time, about the world's things; no other task of its namesake. It answers with no box "
    "where nothing fits, which the published model was not taught. Captions of several phrases were never trained.",
    bars={
        "mean_iou": "mean overlap of the first box with the true one over all phrases of one thing, 0 without a box",
        "located": "share of those phrases whose first box overlaps the true one by half or more",
        "reference_iou": "mean overlap on pictures of one thing alone, half of them on white",
        "absent_refused": "share of phrases about nothing in the picture that got no box",
        "several_found": "share of the things that phrases of several things describe that got a box of their own",
    },
)


def build(things: Path, out: Path, params: GrounderParams) -> None:
    """Train on the pictures of ``things``; write the checkpoint, its figures and its card to ``out``."""
    settle(params.fit.seed)
    train, test = read_things(things / "train"), read_things(things / "test")
    rng = np.random.default_rng(0)
    texts = [sample_phrase(scene["attributes"], rng).text for scene in train.scenes]
    processor = new_processor(texts, params)
    model = new_model(processor, params)
    if params.start is not None:
        model = Florence2ForConditionalGeneration.from_pretrained(params.start, torch_dtype=torch.float32)
    heads = new_heads(params)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        drawn = [draw(train, params.size, params.cells, rng) for _ in range(params.fit.batch)]
        with half_precision():
            return grounding_loss(model, heads, processor, drawn)

    curves = fit([model, heads], loss_of, params.fit, out.with_suffix(".progress"))
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        tokenizer = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
        (folder / TOKENIZER).write_text(json.dumps(tokenizer, separators=(",", ":")), encoding="utf-8")
        metrics = score(Florence2(folder, 0.0), test)
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("grounder", metrics, curves, params))


def new_processor(texts: Sequence[str], params: GrounderParams) -> Florence2Processor:
    """The processor of the published model with another size and a small vocabulary, learnt from phrases."""
    images = CLIPImageProcessor(
        size={"height": params.size, "width": params.size}, do_center_crop=False,
        image_mean=list(MEAN), image_std=list(STD),
    )  # fmt: skip
    images.image_seq_length = params.cells**2 + 1
    post = {"phrase_grounding": {"banned_grounding_tokens": []}, "pure_text": {}, "description_with_bboxes": {}}
    tokenizer = bart_tokenizer([PROMPT + text for text in texts], params.vocabulary)
    return Florence2Processor(images, tokenizer, post_processor_config=post)


def bart_tokenizer(texts: Sequence[str], vocabulary: int) -> RobertaTokenizer:
    """BART's byte-level BPE with about ``vocabulary`` pairs and the special tokens of Florence-2's grounding."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet))
    learnt = json.loads(learner.to_str())["model"]
    vocab = {token: number for number, token in enumerate([*SPECIAL, *learnt["vocab"]])}
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in learnt["merges"]]
    # A dictionary makes the attributes `image_token` and `image_token_id`, which the processor reads.
    tokenizer = RobertaTokenizer(
        vocab=vocab, merges=merges, model_max_length=LONGEST, extra_special_tokens={"image_token": "<image>"}
    )
    tokenizer.add_tokens([f"<loc_{place}>" for place in range(BINS)], special_tokens=True)
    return tokenizer


def new_model(processor: Florence2Processor, params: GrounderParams) -> Florence2ForConditionalGeneration:
    """An untrained model whose location tokens begin as smooth functions of the place."""
    tokenizer, width = processor.tokenizer, params.width
    vision = {
        "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [params.stride // 2, 2], "patch_padding": [3, 1],
        "patch_prenorm": [False, True], "embed_dim": [width // 3, width], "num_heads": [2, HEADS],
        "num_groups": [2, HEADS], "window_size": params.cells, "drop_path_rate": 0.0, "mlp_ratio": 2.0,
        "projection_dim": width, "max_position_embeddings": params.cells,
    }  # fmt: skip
    text = BartConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LONGEST, d_model=width,
        encoder_layers=params.layers, decoder_layers=params.layers, encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id, forced_bos_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    config._attn_implementation = "eager"
    model = Florence2ForConditionalGeneration(config)
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    place = torch.linspace(0, 1, BINS)[:, None]
    waves = torch.cos(torch.pi * (8 * torch.rand(width) * place + 2 * torch.rand(width)))
    with torch.no_grad():
        model.lm_head.weight[first : first + BINS] = 0.03 * waves
    return model


def new_heads(params: GrounderParams) -> nn.ModuleDict:
    """Untrained heads: into the space of words of what a visual token shows, and whether it belongs to the phrase."""
    seen = nn.ModuleDict({name: nn.Linear(params.width, params.width) for name in SEEN_WORDS})
    return nn.ModuleDict({"seen": seen, "found": nn.Linear(params.width, 1)})


def grounding_loss(
    model: Florence2ForConditionalGeneration, heads: nn.ModuleDict, processor: Florence2Processor,
    drawn: Sequence[Grounded],
) -> Loss:  # fmt: skip
    """The answers' loss with soft locations, and those of the heads."""
    tokenizer = processor.tokenizer
    pixels, ids, mask = inputs_of(processor, drawn)
    labels = tokenizer([answer_of(example) for example in drawn], padding=True, return_tensors="pt")["input_ids"]
    labels = labels.masked_fill(labels == tokenizer.pad_token_id, UNSEEN)
    tokens = model.model.get_image_features(pixels).pooler_output
    assert tokens is not None
    embedded = model.get_input_embeddings()(ids)
    places = (ids == model.config.image_token_id)[..., None]
    embedded = embedded.masked_scatter(places, tokens.to(embedded.dtype))
    encoded = model.model.language_model.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded), attention_mask=mask, labels=labels,
        inputs_embeds=embedded,
    ).logits  # fmt: skip
    met = encoded[places.expand_as(encoded)].view_as(tokens)[:, 1:]
    belongs = torch.from_numpy(np.stack([example.belongs for example in drawn])).flatten(1)
    seen = torch.from_numpy(np.stack([example.seen for example in drawn])).flatten(1, 2)
    belonging = functional.binary_cross_entropy_with_logits(
        heads["found"](met)[..., 0].float(), belongs, weight=torch.where(seen[..., 0] == UNSEEN, EMPTY_WEIGHT, 1.0)
    )
    words, where = soft_cross_entropy(logits, labels, tokenizer.convert_tokens_to_ids("<loc_0>"))
    return Loss(
        words=words,
        where=where,
        found=FOUND_WEIGHT * belonging,
        seen=SEEN_WEIGHT * _seen_loss(model, heads["seen"], tokenizer, tokens[:, 1:], seen),
    )


def inputs_of(processor: Florence2Processor, drawn: Sequence[Grounded]) -> tuple[Tensor, Tensor, Tensor]:
    """What the processor makes of pictures of its own size and their phrases, faster: pixels, ids and their mask."""
    tokenizer = processor.tokenizer
    scaled = torch.from_numpy(np.stack([example.rgb for example in drawn])).float().div(255)
    pixels = ((scaled - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()
    prompts = [f"{tokenizer.bos_token}{PROMPT}{example.phrase.text}{tokenizer.eos_token}" for example in drawn]
    words = tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
    images = torch.full((len(drawn), processor.num_image_tokens), processor.image_token_id)
    ids = torch.cat([images, words["input_ids"]], dim=1)
    return pixels, ids, torch.cat([torch.ones_like(images), words["attention_mask"]], dim=1)


def answer_of(example: Grounded) -> str:
    """The answer to a phrase: the phrase with all boxes, or nothing."""
    if not len(example.boxes):
        return ""
    bins = np.clip(np.floor(example.boxes * BINS), 0, BINS - 1).astype(int)
    return example.phrase.text + "".join(f"<loc_{place}>" for place in bins.ravel())


def soft_cross_entropy(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Mean cross entropy (B, L) of words, and of locations, which count as right near the true one (`SPREAD`).

    The second one is above its least value, the entropy of the spread, by the divergence alone; 0 without locations.
    """
    log_shares = logits.float().log_softmax(dim=-1)
    place = labels - first
    located = (place >= 0) & (place < BINS)
    words = functional.nll_loss(log_shares[~located], labels[~located], ignore_index=UNSEEN)
    if not located.any():
        return words, torch.zeros(())
    distance = torch.arange(BINS) - place[located][:, None]
    near = torch.exp(-0.5 * (distance / SPREAD) ** 2)
    near = near / near.sum(dim=-1, keepdim=True)
    return words, functional.kl_div(log_shares[located][:, first : first + BINS], near, reduction="batchmean")


def _seen_loss(
    model: Florence2ForConditionalGeneration, heads: nn.ModuleDict, tokenizer: RobertaTokenizer, tokens: Tensor,
    seen: Tensor,
) -> Tensor:  # fmt: skip
    """Mean cross entropy of the words of each visual token that shows a thing.

    The classes are the language model's own embeddings of the words, so that pictures and phrases meet in one space.
    """
    embeddings, losses = model.get_input_embeddings(), []
    for index, name in enumerate(SEEN_WORDS):
        pieces = tokenizer([f" {word}" for word in VOCABULARY[name]], add_special_tokens=False)["input_ids"]
        words = torch.stack([embeddings(torch.tensor(ids)).mean(dim=0) for ids in pieces])
        logits = WORD_FACTOR * heads[name](tokens).float() @ words.float().T
        losses.append(functional.cross_entropy(logits.flatten(0, 1), seen[..., index].flatten(), ignore_index=UNSEEN))
    return torch.stack(losses).mean()
