"""Supervision of the captioner's attention by the objects that questions name.

Whether a word fits something in an image is learned slowly from answers of one bit each: the question has to be
understood before looking pays, and a query has to meet its key before any answer shows that it should. So both are
supervised. When an answer is due, the network has to know what was asked for, and one head of the next layer is shown
where to look: at the patches that show it or, when nothing does, at the first token. It is the network's own attention.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLAttention, apply_rotary_pos_emb

from mcpipe.world.captions import VOCABULARY
from zoo.build.conversations import Conversation, Question
from zoo.build.pictures import Pictures
from zoo.build.regions import NAMES
from zoo.build.sightings import MERGE
from zoo.build.training import Loss

LAYER, HEAD = 1, 0
"""Layer and head of the language model that point; below, the last token of a question already holds its topic."""

ASKED = (None, *((name, value) for name, values in VOCABULARY.items() for value in values))
"""Objects that a question can name."""

LEAST_MASS = 1e-4
NOWHERE = 0
"""The token to look at when nothing fits."""

WEIGHT = 0.3
"""Weight of each term, against the answers."""


class Seen(NamedTuple):
    """What an attention was given."""

    attention: Qwen2_5_VLAttention
    hidden: Tensor
    turns: tuple[Tensor, Tensor]


class Watched(nn.Module):
    """Recomputes the attention of a layer in the latest forward pass of the network, so that it can be taught."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Seen | None = None

    @contextmanager
    def watching(self, model: Qwen2_5_VLForConditionalGeneration) -> Iterator[None]:
        """Store the inputs of the layer's attention in the latest forward pass."""

        def remember(attention: nn.Module, _args: tuple, call: dict) -> None:
            self._seen = Seen(attention, call["hidden_states"], call["position_embeddings"])

        layer = model.model.language_model.layers[LAYER]
        watch = layer.self_attn.register_forward_pre_hook(remember, with_kwargs=True)
        try:
            yield
        finally:
            watch.remove()

    def hidden(self, row: int, lookers: Tensor) -> Tensor:
        """The tokens (lookers, width) of one sequence as the layer received them."""
        assert self._seen is not None, "no forward pass was watched"
        return self._seen.hidden[row, lookers].float()

    def attention(self, row: int, lookers: Tensor, seen: Tensor) -> Tensor:
        """Attention (lookers, length) within one sequence to what the lookers see, as the layer computes it."""
        assert self._seen is not None, "no forward pass was watched"
        layer, hidden, turns = self._seen
        queries, keys = (
            project(hidden[row : row + 1]).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
            for project in (layer.q_proj, layer.k_proj)
        )
        queries, keys = apply_rotary_pos_emb(queries, keys, *(turn[row : row + 1] for turn in turns))
        scores = queries[0, HEAD, lookers] @ keys[0, HEAD // layer.num_key_value_groups].T * layer.scaling
        return scores.float().masked_fill(~seen, -torch.inf).softmax(-1)


class Pointing(Watched):
    """Loss on the object that a question names, and on the attention to it; its classifier is discarded later."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asked = nn.Linear(width, len(ASKED))

    def loss(self, inputs: dict, answers: Tensor, conversations: Sequence[Conversation], pictures: Pictures) -> Loss:
        """Cross entropy of the question's object, and mean negative logarithm of the attention to it.

        ``answers`` (batch, length) marks the first token of every answer; the tokens before them are those that look.
        Conversations are about one image of ``pictures`` each, their questions set apart (`zoo.build.apart`).
        """
        guesses, named, masses = [], [], []
        for row, conversation in enumerate(conversations):
            grid = inputs["image_grid_thw"][row, 1:] // MERGE
            regions = _regions(conversation, pictures, (int(grid[0]), int(grid[1])))
            place = inputs["mm_token_type_ids"][row].nonzero()[:, 0]
            lookers = answers[row].nonzero()[:, 0] - 1
            guesses.append(self.asked(self.hidden(row, lookers)))
            named += [ASKED.index(question.names) for question in conversation.questions]
            attention = self.attention(row, lookers, inputs["attention_mask"][row, 0, lookers])
            for question, looked in zip(conversation.questions, attention, strict=True):
                where = looked_for(question, regions, place)
                masses += [looked[where].sum()] if len(where) else []
        naming = functional.cross_entropy(torch.cat(guesses), torch.tensor(named))
        return Loss(asked=WEIGHT * naming, pointing=-WEIGHT * torch.stack(masses).clamp(min=LEAST_MASS).log().mean())


def _regions(conversation: Conversation, pictures: Pictures, side: tuple[int, int]) -> Tensor:
    assert conversation.target is not None, "questions are about a target"
    return torch.as_tensor(conversation.target.regions(pictures, side).copy()).flatten(0, 1)


def looked_for(question: Question, regions: Tensor, place: Tensor) -> Tensor:
    """The tokens to look at; none if the question names nothing, or nothing large enough to fill a patch."""
    if question.names is None:
        return place[:0]
    if question.answer == "no":
        return torch.tensor([NOWHERE])
    attribute, value = question.names
    return place[regions[:, NAMES.index(attribute)] == VOCABULARY[attribute].index(value)]
