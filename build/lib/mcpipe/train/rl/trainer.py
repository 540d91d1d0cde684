"""Stage 3: identity-preserving preference optimisation (paper, section 4.4): the MixGRPO window with a GSPO ratio.

Departures from the paper: advantages instead of raw rewards are added up by default (see
`mcpipe.objectives.advantage`); the clip range, the group size, eta and the shift, which it does not state, follow
MixGRPO; the window stops before the last step, which cannot be stochastic; the result can be a moving average of the
weights, which it does not speak of.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8

from mcpipe.core.progress import Note, track
from mcpipe.core.records import JSON
from mcpipe.flux.sampler import encode_conditions
from mcpipe.train.loop.averaging import keep_average, take_average
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import Ends
from mcpipe.train.loop.data import sample_index
from mcpipe.train.loop.fit import Engine, OnStep, fit
from mcpipe.train.loop.runtime import accelerator, is_main, lay_out, this_machine
from mcpipe.train.rl.distributed import own_places
from mcpipe.train.rl.learner import Learner, Row, Update
from mcpipe.train.rl.monitor import Summary, collapse
from mcpipe.train.rl.rewards import Prompt

logger = logging.getLogger(__name__)


class Diary(Protocol):
    """Where iterations are written down; one that is repeated after an interruption writes the same again."""

    def rows(self, iteration: int, rows: Sequence[Row]) -> None:
        """Take the unweighted scores of every picture of an iteration."""
        ...

    def pictures(self, iteration: int, pictures: UInt8[np.ndarray, "prompts S S 3"]) -> None:
        """Take what the network draws of the watched prompts before an iteration."""
        ...


class Iterations:
    """All iterations as a course that can be taken up between two of them."""

    def __init__(self, learner: Learner, prompts: Sequence[Prompt], diary: Diary, note: Note | None = None) -> None:
        self.stopped: dict[str, JSON] | None = None
        """Before which iteration the training was stopped, and why."""
        self._learner, self._prompts, self._diary, self._note = learner, prompts, diary, note
        self._places = own_places(learner.params.prompts_per_iteration)
        self._history: list[Summary] = []
        self._done = 0
        self._is_between = True

    def batches(self) -> Iterator[Update]:
        """The optimiser steps of the iterations that are left, up to a collapse."""
        params, learner = self._learner.params, self._learner
        size = params.prompts_per_iteration
        left = range(self._done, params.num_iterations)
        order = [
            self._prompts[sample_index(len(self._prompts), params.seed, place)]
            for place in range(params.num_iterations * size)
        ]
        own = [order[iteration * size + place] for iteration in left for place in self._places]
        watched = self._prompts[: params.watch.num_prompts] if params.watch.pictures_every and is_main() else []
        used = {prompt.key: prompt for prompt in [*own, *watched]}
        conditions = {
            key: encode_conditions(learner.pipeline, [prompt.text], [prompt.faces]).to("cpu")
            for key, prompt in used.items()
        }
        seen = [conditions[prompt.key] for prompt in watched]
        for iteration in track(left, len(left), "iterations", self._note) if is_main() else left:
            if self._is_collapsed(iteration):
                break
            if seen and iteration % params.watch.pictures_every == 0:
                self._diary.pictures(iteration, learner.pictures(seen))
            prompts = order[iteration * size : (iteration + 1) * size]
            drawn = learner.iteration(iteration, prompts, conditions, self._places)
            self._diary.rows(iteration, drawn.rows)
            self._history += [drawn.summary] if drawn.rows else []
            while drawn.updates:
                update = drawn.updates.pop(0)  # one that is done keeps no gradient alive
                self._is_between = not drawn.updates
                self._done = iteration + self._is_between
                yield update
        else:
            iteration = params.num_iterations
            self._is_collapsed(iteration)
        if seen:
            self._diary.pictures(iteration, learner.pictures(seen))

    def standing(self) -> dict[str, JSON] | None:
        """The iterations done, where the window stands after them, and what was seen and counted in them."""
        if not self._is_between:
            return None
        report = self._learner.report
        return {
            "iterations": self._done,
            "window": self._learner.params.window(self._done).start,
            "history": [dict(summary) for summary in self._history],
            "kept": list(report.kept),
            "rejections": [dict(rejection) for rejection in report.rejections],
            "forwards": dict(self._learner.forwards),
        }

    def resume(self, standing: Mapping[str, Any]) -> None:
        """Go on after the iterations of another run.

        Raises:
            ValueError: its window stood elsewhere.
        """
        self._done = standing["iterations"]
        start = self._learner.params.window(self._done).start
        if start != standing["window"]:
            raise ValueError(f"the window stood at step {standing['window']}, but is to be at {start}")
        self._history = [dict(summary) for summary in standing["history"]]
        self._learner.forwards.update(standing["forwards"])
        self._learner.report.kept.extend(standing["kept"])
        self._learner.report.rejections.extend(standing["rejections"])

    def _is_collapsed(self, iteration: int) -> bool:
        """Whether the training has gone wrong before an iteration; says why."""
        reason = collapse(self._history, self._learner.params.watch)
        if reason is not None:
            logger.warning("training stops before iteration %d: %s", iteration, reason)
            self.stopped = {"iteration": iteration, "reason": reason}
        return reason is not None


def train_rl(
    learner: Learner, prompts: Sequence[Prompt], on_step: OnStep, checkpoint: Checkpoint, diary: Diary
) -> dict[str, JSON]:
    """Train the network's adapter on what the judges prefer; returns facts about the training.

    Raises:
        ValueError: no group could be judged, or the environment asks to spread weights over processes.
    """
    ends = Ends(on_step)
    course = Iterations(learner, prompts, diary, ends.latest)
    engine = engine_of(learner)
    fit(engine, course, learner.losses, ends, checkpoint)
    if learner.params.update.ema_decay:
        take_average(engine.optimizer)
    if not learner.report.kept:
        reasons = sorted({str(rejection["reason"]) for rejection in learner.report.rejections})
        raise ValueError(f"nothing was learned, because no group of pictures could be judged: {', '.join(reasons)}")
    return {
        "trained_parameters": sum(weight.numel() for weight in learner.weights),
        "forwards": dict(sorted(learner.forwards.items())),
        "stopped": course.stopped,
        "curves": {name: dict(values) for name, values in ends.means().items()},
    }


def engine_of(learner: Learner) -> Engine:
    """What steps are taken with; every process holds all weights, and gradients reach it summed over processes.

    Raises:
        ValueError: the environment asks to spread weights over processes.
    """
    machine, here, update = this_machine(), accelerator(), learner.params.update
    if machine.sharding != "none":
        raise ValueError(
            f"reinforcement holds all weights in every process; MCPIPE_SHARDING={machine.sharding} is for the stages "
            "before it"
        )
    lay_out(learner.network, machine, here.device, half=here.mixed_precision == "bf16")
    optimizer = torch.optim.AdamW(learner.weights, lr=update.learning_rate, weight_decay=update.weight_decay)
    if update.ema_decay:
        keep_average(optimizer, update.ema_decay)
    model = here.prepare_model(learner.network, evaluation_mode=True)
    return Engine(here, model, here.prepare_optimizer(optimizer), update.max_grad_norm)
