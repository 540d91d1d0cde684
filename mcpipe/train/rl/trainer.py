"""Training stage 3: identity-preserving preference optimisation (paper, section 4.4), MixGRPO's window, GSPO's ratio.

Departures from the paper: advantages instead of raw rewards are summed by default (see
`mcpipe.objectives.advantage`); the clip range, the group size and eta, which it does not state, follow MixGRPO, shift
and guidance the benchmark's; the window stops before the last step, which cannot be stochastic; the result can be a
moving average of the weights, which it does not mention.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpipe.core.progress import Note, track
from mcpipe.core.records import JSON
from mcpipe.flux.encoders import release_text_encoders
from mcpipe.flux.network import Conditions
from mcpipe.train.loop.averaging import keep_average, take_average
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import CurveEnds
from mcpipe.train.loop.fit import Engine, OnStep, fit
from mcpipe.train.loop.optimizers import adamw
from mcpipe.train.loop.order import sample_index
from mcpipe.train.loop.runtime import is_main, make_accelerator, prepare, runtime_from
from mcpipe.train.rl.distributed import own_places
from mcpipe.train.rl.learner import Learner, Update
from mcpipe.train.rl.monitor import Summary, collapse
from mcpipe.train.rl.rewards import Prompt
from mcpipe.train.rl.rollout_log import RolloutLog

logger = logging.getLogger(__name__)


class Iterations:
    """The updates of all iterations; another run can go on between two iterations."""

    def __init__(self, learner: Learner, prompts: Sequence[Prompt], log: RolloutLog, note: Note | None = None) -> None:
        self.stopped: dict[str, JSON] | None = None
        """Iteration before which the training was stopped, and the reason."""
        self._learner, self._prompts, self._log, self._note = learner, prompts, log, note
        self._places = own_places(learner.params.prompts_per_iteration)
        self._history: list[Summary] = []
        self._num_done = 0
        self._is_between = True

    def __iter__(self) -> Iterator[Update]:
        """Iterate over the updates of the remaining iterations, up to a collapse."""
        params, learner = self._learner.params, self._learner
        remaining = range(self._num_done, params.num_iterations)
        order = self._order()
        conditions = self._conditions(order)
        previewed = [conditions[prompt.key] for prompt in self._preview_prompts]
        for iteration in track(remaining, len(remaining), "iterations", self._note) if is_main() else remaining:
            if self._is_collapsed(iteration):
                break
            if previewed and iteration % params.watch.pictures_every == 0:
                self._log.previews(iteration, learner.previews(previewed))
            rollouts = learner.iteration(iteration, order[iteration], conditions, self._places)
            self._log.scores(iteration, rollouts.scores)
            self._history += [rollouts.summary] if rollouts.scores else []
            while rollouts.updates:
                update = rollouts.updates.pop(0)
                self._is_between = not rollouts.updates
                self._num_done = iteration + self._is_between
                yield update
        else:
            iteration = params.num_iterations
            self._is_collapsed(iteration)
        if previewed:
            self._log.previews(iteration, learner.previews(previewed))

    @property
    def can_resume(self) -> bool:
        """Whether the latest update was the last one of its iteration."""
        return self._is_between

    def state_dict(self) -> dict[str, JSON]:
        """The number of iterations done, the window after them, their metrics and their counts."""
        report = self._learner.report
        return {
            "iterations": self._num_done,
            "window": self._learner.params.window(self._num_done).start,
            "history": [dict(summary) for summary in self._history],
            "kept": list(report.kept),
            "rejections": [dict(rejection) for rejection in report.rejections],
            "forwards": dict(self._learner.forwards),
            "unjudged": self._learner.num_unjudged,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on after the iterations of an earlier run.

        Raises:
            ValueError: the earlier run's window was at another step.
        """
        self._num_done = state_dict["iterations"]
        start = self._learner.params.window(self._num_done).start
        if start != state_dict["window"]:
            raise ValueError(f"the window stood at step {state_dict['window']}, but is to be at {start}")
        self._history = [dict(summary) for summary in state_dict["history"]]
        self._learner.forwards.update(state_dict["forwards"])
        self._learner.num_unjudged = state_dict["unjudged"]
        self._learner.report.kept.extend(state_dict["kept"])
        self._learner.report.rejections.extend(state_dict["rejections"])

    def _order(self) -> list[list[Prompt]]:
        """The prompts of every iteration."""
        params = self._learner.params
        size = params.prompts_per_iteration
        order = [
            self._prompts[sample_index(len(self._prompts), params.seed, position)]
            for position in range(params.num_iterations * size)
        ]
        return [order[start : start + size] for start in range(0, len(order), size)]

    @property
    def _preview_prompts(self) -> Sequence[Prompt]:
        watch, takes_part = self._learner.params.watch, is_main() or self._learner.is_sharded
        return self._prompts[: watch.num_prompts] if watch.pictures_every and takes_part else []

    def _conditions(self, order: Sequence[Sequence[Prompt]]) -> dict[str, Conditions]:
        """Encoded conditions in main memory, by key, of all prompts that this process has yet to use."""
        own = [prompts[place] for prompts in order[self._num_done :] for place in self._places]
        used = {prompt.key: prompt for prompt in [*own, *self._preview_prompts]}
        encoded = {key: self._learner.conditions_of(prompt) for key, prompt in used.items()}
        release_text_encoders(self._learner.pipeline)
        return encoded

    def _is_collapsed(self, iteration: int) -> bool:
        """Whether the training has collapsed before an iteration; keeps and logs the reason."""
        reason = collapse(self._history, self._learner.params.watch)
        if reason is not None:
            logger.warning("training stops before iteration %d: %s", iteration, reason)
            self.stopped = {"iteration": iteration, "reason": reason}
        return reason is not None


def train_rl(
    learner: Learner, prompts: Sequence[Prompt], on_step: OnStep, checkpoint: Checkpoint, log: RolloutLog
) -> dict[str, JSON]:
    """Train the network's adapter on rewards; returns facts about the training.

    Raises:
        ValueError: no group could be scored, or the environment is invalid.
    """
    curve_ends = CurveEnds(on_step)
    iterations = Iterations(learner, prompts, log, curve_ends.latest)
    engine = engine_of(learner)
    fit(engine, iterations, learner.accumulate, curve_ends, checkpoint)
    if learner.params.update.ema_decay:
        take_average(engine.optimizer)
    if not learner.report.kept:
        reasons = sorted({str(rejection["reason"]) for rejection in learner.report.rejections})
        raise ValueError(f"nothing was learned, because no group of images could be scored: {', '.join(reasons)}")
    return {
        "trained_parameters": sum(weight.numel() for weight in learner.weights),
        "forwards": dict(sorted(learner.forwards.items())),
        "stopped": iterations.stopped,
        **({"semantic_missing": learner.num_unjudged} if learner.params.rewards.semantic else {}),
        "curves": {name: dict(values) for name, values in curve_ends.means().items()},
    }


def engine_of(learner: Learner) -> Engine:
    """The engine of a learner; it reduces no gradient, which `Learner.accumulate` and the sharding do.

    Raises:
        ValueError: an environment variable has an invalid value.
    """
    runtime, update = runtime_from(), learner.params.update
    accelerator = make_accelerator()
    prepare(learner.network, runtime, accelerator.device, bfloat16=accelerator.mixed_precision == "bf16")
    if learner.is_sharded:
        learner.keep_reference()
    if runtime.offload_scorers:
        learner.scorers = learner.scorers.offloaded()
    optimizer = adamw(runtime, learner.weights, update.learning_rate, update.weight_decay)
    if update.ema_decay:
        keep_average(optimizer, update.ema_decay)
    model = accelerator.prepare_model(learner.network, evaluation_mode=True)
    return Engine(accelerator, model, accelerator.prepare_optimizer(optimizer), update.max_grad_norm)
