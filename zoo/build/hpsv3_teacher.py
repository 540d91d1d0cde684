"""What teaches the tiny zoo's HPSv3: comparisons, and terms that teach a small network to see and to read."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mcpipe.models.scorers.hpsv3 import OUTPUTS, at_token, conversation, plain_positions
from mcpipe.models.scorers.hpsv3_prompt import REWARD_TOKEN, TEMPLATE
from zoo.build.crops import jittered
from zoo.build.forms import caption_and_opposite
from zoo.build.pictures import Pictures
from zoo.build.training import Loss, half_precision

LARGEST_SCALE = 4.6052


class AuxiliaryHeads(nn.Module):
    """What the network learns by and does not keep."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen, self.read, self.right = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, seen: Tensor, read: Tensor) -> Tensor:
        """Logits (B, B) of images (B, D) by sentences (B, D), each given by the mean of its tokens."""
        images = functional.normalize(self.seen(seen), dim=-1)
        return self.scale.clamp(max=LARGEST_SCALE).exp() * images @ functional.normalize(self.read(read), dim=-1).T


def clean_pairs(
    pictures: Pictures, squares: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Clean images (count, S, S, 3) and a sentence about each."""
    images, captions = [], []
    for index in rng.integers(0, len(squares), count):
        mirror = bool(rng.random() < 0.5)
        images.append(jittered(squares[index][:, ::-1] if mirror else squares[index], rng))
        captions.append(caption_and_opposite(pictures.scenes[index], mirror, rng)[0])
    return np.array(images), captions


class PreferenceTeacher:
    """Everything that a batch of comparisons teaches."""

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        head: nn.Sequential,
        heads: AuxiliaryHeads,
        processor: Qwen2VLProcessor,
    ) -> None:
        self._model, self._head, self._heads, self._processor = model, head, heads, processor
        self._reward = processor.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        before, after = TEMPLATE.split("{text_prompt}")
        self._before = processor.tokenizer.convert_tokens_to_ids(before)
        self._after = processor.tokenizer.convert_tokens_to_ids(after.split(REWARD_TOKEN)[0])

    def auxiliary(self, images: np.ndarray, captions: Sequence[str]) -> Loss:
        """The terms that need no comparison, of images (N, S, S, 3) and a sentence about each."""
        with half_precision():
            features = self._seen(images)
            tokens = self._tokens(captions, features.shape[1])
            return self._auxiliary(features, tokens, self._states(features, tokens))

    def loss(self, images: np.ndarray, spoiled: np.ndarray, captions: Sequence[str]) -> Loss:
        """Preference for each image over the more spoiled one and over another scene, and the terms that help.

        ``images`` (versions, count, S, S, 3) from clean to ever more spoiled, ``spoiled`` (versions, count) how much.
        """
        versions, count = spoiled.shape
        with half_precision():
            features = self._seen(images.reshape(-1, *images.shape[2:]))
            rows = np.concatenate([np.arange(versions * count), np.roll(np.arange(count), 1)])
            once = self._tokens(captions, features.shape[1])
            tokens = once.repeat(versions + 1, 1)
            states = self._states(features[torch.from_numpy(rows)], tokens)
            outputs = self._head(at_token(states, tokens, self._reward)).float().view(versions + 1, count, OUTPUTS)
            right = self._heads.right(states).float().view(versions + 1, count, -1)
            helping = self._auxiliary(features[:count], once, states[:count])
        levels = torch.from_numpy(np.diff(spoiled, axis=0)).float()
        cleaner, matching = prefers(outputs[: versions - 1], outputs[1:versions]), prefers(outputs[0], outputs[-1])
        words = self._words(once)[:, : states.shape[1]]
        return Loss(
            preference=-(levels * cleaner).sum() / levels.sum(),
            matching=-matching.mean(),
            words=-functional.logsigmoid(right[0] - right[-1])[words].mean(),
            **helping,
            _clean_wins=(outputs[0, :, 0] > outputs[1, :, 0]).float().mean(),
            _matching_wins=(outputs[0, :, 0] > outputs[-1, :, 0]).float().mean(),
        )

    def _auxiliary(self, features: Tensor, tokens: Tensor, states: Tensor) -> Loss:
        """How well images (N, T, D) and their sentences are matched, and sentences predicted from images."""
        words = self._words(tokens)
        read = (self._model.get_input_embeddings()(tokens) * words[..., None]).sum(1) / words.sum(1)[:, None]
        logits = self._heads(features.mean(dim=1), read).float()
        places = torch.arange(len(tokens))
        contrast = 0.5 * (functional.cross_entropy(logits, places) + functional.cross_entropy(logits.T, places))
        hits = (logits.argmax(dim=1) == places).float().mean()
        return Loss(contrast=0.5 * contrast, language=0.5 * self._language(states, tokens), _hits=hits)

    def _seen(self, images: np.ndarray) -> Tensor:
        """Tokens (N, T, D) of images (N, S, S, 3) uint8."""
        inputs = self._processor.image_processor(list(images), do_resize=False, return_tensors="pt")
        seen = self._model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        return seen.view(len(images), -1, seen.shape[-1])

    def _tokens(self, captions: Sequence[str], num_seen: int) -> Tensor:
        """Tokens (N, L) of the conversations about one image each, which becomes ``num_seen`` tokens."""
        pad = self._processor.image_token
        texts = [
            self._processor.apply_chat_template(conversation({}, caption), tokenize=False).replace(pad, pad * num_seen)
            for caption in captions
        ]
        self._processor.tokenizer.padding_side = "right"
        return self._processor.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]

    def _states(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """States (N, L, D) behind images' tokens and texts; of nothing behind the last reward token."""
        last = int((tokens == self._reward).nonzero()[:, 1].max())
        tokens = tokens[:, : last + 1]
        # Attention is causal: what stands before the reward token sees no padding, which is behind it.
        return self._model.model(
            input_ids=tokens,
            position_ids=plain_positions(tokens),
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=list(seen))},
            use_cache=False,
        ).last_hidden_state

    def _words(self, tokens: Tensor) -> Tensor:
        """Which of the tokens (N, L) are those of the sentence."""
        begun, ended = ((tokens == fixed).cumsum(dim=1) for fixed in (self._before, self._after))
        return (begun > ended) & (tokens != self._before)

    def _language(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Cross entropy of the sentence's tokens, each from what stands before it."""
        words = self._words(tokens)[:, 1 : states.shape[1]]
        logits = self._model.lm_head(states[:, :-1][words])
        return functional.cross_entropy(logits.float(), tokens[:, 1 : states.shape[1]][words])


def prefers(better: Tensor, worse: Tensor) -> Tensor:
    """Logarithm of the probability that ``better`` wins, given means and log deviations (..., 2) of either score.

    HPSv3 averages the logistic function over samples of the difference; here is MacKay's approximation of that mean
    (Neural Computation 4, 1992).
    """
    margin = better[..., 0] - worse[..., 0]
    variance = (2 * better[..., 1]).exp() + (2 * worse[..., 1]).exp()
    return functional.logsigmoid(margin / (1 + math.pi / 8 * variance).sqrt())
