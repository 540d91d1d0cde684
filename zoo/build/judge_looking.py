"""Supervision of the judge beside its answers: what patches show, what a verdict is about, and where it looks.

As for the captioner (`zoo.build.pointing`), one head of a layer is shown where to look before each "yes" or "no": at
the patches that show the subject or, when nothing does, at the first token. The words of a claim are read off there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.build.judge_claims import PEOPLE, THINGS, Claim
from zoo.build.judge_conversations import Judged
from zoo.build.pointing import LEAST_MASS, NOWHERE, Watched
from zoo.build.sightings import MERGE, UNSEEN
from zoo.build.training import Loss

UNASKED = "unasked"
ASKED = {name: (*values, UNASKED) for realm in (THINGS, PEOPLE) for name, values in realm.values.items()}
"""Every word that a claim can demand, by name."""

WEIGHT = 0.6
"""Weight of each term, against the answers."""

LEAST_PART = 0.4
"""Part of a patch that a subject fills to be seen there."""


class PatchWords(nn.Module):
    """One classifier for each word about things, the same for all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.of = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in THINGS.values.items()})

    def loss(self, grids: Sequence[Tensor], conversations: Sequence[Judged]) -> Loss:
        """Mean cross entropy of the words on tokens (rows, columns, width) that show things, and each for the log."""
        tokens, words = [], []
        for grid, conversation in zip(grids, conversations, strict=True):
            view = conversation.view
            if view is None or view.realm is not THINGS:
                continue
            for seat, subject in enumerate(view.subjects):
                visible = torch.from_numpy(view.patches([seat], (grid.shape[0], grid.shape[1])) >= LEAST_PART)
                tokens.append(grid[visible])
                words += [subject] * int(visible.sum())
        if not words:
            return Loss(words=torch.zeros(()))
        seen = self.norm(torch.cat(tokens))
        terms = {
            name: functional.cross_entropy(
                head(seen), torch.tensor([THINGS.values[name].index(subject[name]) for subject in words])
            )
            for name, head in self.of.items()
        }
        return Loss(
            {f"_{name}": term for name, term in terms.items()} | {"words": torch.stack([*terms.values()]).mean()}
        )


class Looking(Watched):
    """Loss on the words of each claim, and on the attention to its subjects; its classifiers are discarded later."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asked = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in ASKED.items()})

    def loss(self, inputs: dict, verdicts: Tensor, conversations: Sequence[Judged]) -> Loss:
        """Cross entropy of the claims' words, and mean negative logarithm of the attention to their subjects.

        ``verdicts`` (batch, length) marks every "yes" and "no" in the answers; the tokens before them are those that
        look. Conversations are about one image each, their questions set apart (`zoo.build.apart`).
        """
        hidden, claims, masses = [], [], []
        for row, conversation in enumerate(conversations):
            assert conversation.view is not None, "verdicts are about an image"
            grid = inputs["image_grid_thw"][row, 1:] // MERGE
            place = inputs["mm_token_type_ids"][row].nonzero()[:, 0]
            lookers = verdicts[row].nonzero()[:, 0] - 1
            hidden.append(self.hidden(row, lookers))
            claims += conversation.verdicts
            attention = self.attention(row, lookers, inputs["attention_mask"][row, 0, lookers])
            for claim, looked in zip(conversation.verdicts, attention, strict=True):
                if claim is None:
                    continue
                patches = conversation.view.patches(claim.seats, (int(grid[0]), int(grid[1]))) >= LEAST_PART
                where = place[torch.from_numpy(np.ascontiguousarray(patches)).flatten()]
                masses += [looked[where].sum()] if len(where) else []
                masses += [looked[NOWHERE]] if not claim.seats else []
        asked = WEIGHT * self._asked(torch.cat(hidden), claims)
        return Loss(asked=asked, pointing=-WEIGHT * torch.stack(masses).clamp(min=LEAST_MASS).log().mean())

    def _asked(self, hidden: Tensor, claims: Sequence[Claim | None]) -> Tensor:
        """Mean cross entropy of the demanded words."""
        terms = [
            functional.cross_entropy(
                head(hidden), torch.tensor([_class(name, claim) for claim in claims]), ignore_index=UNSEEN
            )
            for name, head in self.asked.items()
        ]
        return torch.stack(terms).mean()


def _class(name: str, claim: Claim | None) -> int:
    return UNSEEN if claim is None else ASKED[name].index(claim.demands.get(name, UNASKED))
