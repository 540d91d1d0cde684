"""One iteration of reinforcement, shared as in stage 3, against a loop in the style of the released trainers.

    python benchmarks/rl.py [--windows 0 5] [--group 12] [--steps 16] [--updates 1] [--together 3] [--repeats 3]
                            [--after-window 0.4] [--float64] [--json FILE]

The loop draws every image alone and from the first step on, decodes and scores it alone, and then takes, per image
and step of the window, a forward and a backward pass of one image, as the trainers of MixGRPO and Flow-GRPO do on one
device. It was written for this comparison: same network, noise, scorers, optimiser, no gradient checkpointing on either
side (the trainers checkpoint every block, one more forward pass per backward pass: counted apart). Stage 3 also watches
(a held-out recogniser, the divergence from the start); the loop does not.

Both must compute the same gradient of the same advantages. The loop's own advantages are compared separately: where a
rounding in the last digit of a latent changes a byte of the image, the scorers see another image.

With ``sampling.after_window`` below 1 stage 3 takes fewer steps behind the window, which is no longer exact: timed
against the same loop, and how its advantages correlate with those of all steps, over images of several prompts.

Times are seconds of the processor that this process used (on a GPU: of the clock), the least of the repeats, in which
the ways take turns. In equivalents a backward pass counts as BACKWARD forward passes.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mcpipe.core.offline import stay_offline
from mcpipe.core.params import read_params
from mcpipe.core.report import Report
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import encode_conditions
from mcpipe.flux.tokens import layout, unpack
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.objectives import sde
from mcpipe.objectives.advantage import combined_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.objectives.gspo import clipped_objective
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.prompts import read_prompts
from mcpipe.train.rl.rewards import FaceScorer, Prompt, Scorers, rewards
from mcpipe.train.rl.rollout import Noise

ROOT = Path(__file__).resolve().parent.parent
BACKWARD = 1.26
"""Forward passes that a backward pass costs where all weights but an adapter's are frozen (FLUX, counted in FLOPs)."""
WANTED = {0: 2.5, 5: 3.0}
"""Least gain in time by the window's first step."""
NUM_COMPARED = 4
"""Prompts whose advantages are compared between all steps and few."""

Gradient = list[torch.Tensor]


@dataclass(frozen=True)
class Learned:
    """Results of an iteration."""

    gradient: Gradient
    """Gradient of its first update."""
    advantages: torch.Tensor
    """Advantages of the images by their scores."""


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--group", type=int, default=12)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--together", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--after-window", type=float, default=0.4, help="part of the steps taken behind the window")
    parser.add_argument("--float64", action="store_true", help="compare the gradients in double precision as well")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    stay_offline()
    learner, prompts = made(options)
    few = shortened(learner, options.after_window)
    conditions = {
        prompt.key: encode_conditions(learner.pipeline, [prompt.text], [np.stack(prompt.references)])
        for prompt in prompts
    }
    prompt = prompts[0]
    figures: dict[str, object] = {"settings": {name: v for name, v in vars(options).items() if name != "json"}}
    reached = {}
    for start in options.windows:
        comparison = compared(learner, few, prompt, conditions[prompt.key], start, options.repeats)
        comparison["few_steps_correlation"] = agreement(learner, few, prompts, conditions, start)
        figures[f"window_{start}"] = comparison
        if start in WANTED:
            reached[f"exact, at least {WANTED[start]}x at {start}"] = comparison["gain_seconds"] >= WANTED[start]
            reached[f"few steps, at least {WANTED[start]}x at {start}"] = comparison["few_steps_gain"] >= WANTED[start]
    figures["reached"] = reached
    if options.float64:
        double = in_double(learner, conditions[prompt.key])
        for start in options.windows:
            comparison = compared(learner, few, prompt, double, start, repeats=1)
            figures[f"window_{start}_float64"] = {
                name: comparison[name] for name in ("gradient_distance", "advantage_distance")
            }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(reached.values()) else 1)


def made(options: argparse.Namespace) -> tuple[Learner, list[Prompt]]:
    """A learner on the tiny zoo and the adapter of stage 2, and prompts."""
    settings = read_params(ROOT / "params.yaml", "train_rl", TrainRLParams).model_dump()
    settings["prompts_per_iteration"] = 1
    settings["sampling"] |= {
        "num_steps": options.steps, "group_size": options.group, "samples_per_pass": options.together,
        "move_every": 1, "stride": 1, "after_window": 1.0,
    }  # fmt: skip
    settings["update"] |= {"updates_per_rollout": options.updates, "gradient": "joint"}
    params = TrainRLParams.model_validate(settings)
    zoo = ROOT / "zoo"
    packs = (zoo / "faces" / "models" / "puppet", zoo / "faces_heldout" / "models" / "puppet_heldout")
    recogniser, heldout = (InsightFaces(pack, params.min_face_score, params.detection_size) for pack in packs)
    pipeline = load_generator(zoo / "generator")
    spec = load_adapter(pipeline, ROOT / "data" / "models" / "train_multi")
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.guidance)
    scorers = Scorers(
        FaceScorer(recogniser), Clip(zoo / "clip_reward"), HpsV2_1(zoo / "hps_reward"), FaceScorer(heldout)
    )
    learner = Learner(pipeline, network, scorers, params, Report("train_rl"))
    return learner, read_prompts(ROOT / "data" / "pairs", spec, heldout)[:NUM_COMPARED]


def shortened(learner: Learner, after_window: float) -> Learner:
    """A learner with the same network and scorers, and fewer steps after the window."""
    sampling = learner.params.sampling.model_copy(update={"after_window": after_window})
    params = learner.params.model_copy(update={"sampling": sampling})
    return Learner(learner.pipeline, learner.network, learner.scorers, params, Report("train_rl"))


def compared(  # noqa: PLR0913  both learners and what an iteration needs
    learner: Learner, few: Learner, prompt: Prompt, conditions: Conditions, start: int, repeats: int
) -> dict[str, float | dict[str, float]]:
    """Figures of all ways to do the iteration whose window starts at a step."""
    advantage = advantages(learner, prompt, conditions, start)
    ways: dict[str, Callable[[Counter[str]], Learned]] = {
        "shared": lambda counts: shared(learner, prompt, conditions, start, counts),
        "few_steps": lambda counts: shared(few, prompt, conditions, start, counts),
        "loop": lambda counts: looped(learner, prompt, conditions, start, counts, advantage),
    }
    results, costs = measured(learner, repeats, ways)
    ours, loop, timed, alone = results["shared"], results["loop"], costs["shared"], costs["loop"]
    return {
        **costs,
        "gain_seconds": alone["seconds"] / timed["seconds"],
        "gain_equivalents": alone["equivalents"] / timed["equivalents"],
        "gain_equivalents_checkpointed_loop": (alone["equivalents"] + alone["backwards"]) / timed["equivalents"],
        "few_steps_gain": alone["seconds"] / costs["few_steps"]["seconds"],
        "few_steps_gain_equivalents": alone["equivalents"] / costs["few_steps"]["equivalents"],
        "gradient_distance": distance(ours.gradient, loop.gradient),
        "advantage_distance": distance([ours.advantages], [loop.advantages]),
    }


def agreement(
    learner: Learner, few: Learner, prompts: list[Prompt], conditions: dict[str, Conditions], start: int
) -> float:
    """Correlation of the advantages that all steps and few steps give the same noise, over images of all prompts."""
    values = [
        torch.cat([advantages(trainer, prompt, conditions[prompt.key], start) for prompt in prompts]).cpu().numpy()
        for trainer in (learner, few)
    ]
    return float(np.corrcoef(*values)[0, 1])


def advantages(learner: Learner, prompt: Prompt, conditions: Conditions, start: int) -> torch.Tensor:
    """Advantages of the images that stage 3 draws."""
    drawn = learner.iteration(start, [prompt], {prompt.key: conditions}, range(1))
    return drawn.updates[0].groups[0].advantages


def measured(
    learner: Learner, repeats: int, ways: dict[str, Callable[[Counter[str]], Learned]]
) -> tuple[dict[str, Learned], dict[str, dict[str, float]]]:
    """Results and costs of every way to run an iteration; the ways alternate."""
    results, costs = {}, {}
    for _ in range(repeats):
        for name, way in ways.items():
            counts: Counter[str] = Counter()
            with undone(learner):
                begun = clock()
                results[name] = way(counts)
                seconds = min(clock() - begun, costs.get(name, {}).get("seconds", float("inf")))
            passes, backwards = counts["rollout"] + counts["update"], counts["gradient"]
            costs[name] = {
                "seconds": seconds,
                "forwards": passes,
                "backwards": backwards,
                "equivalents": passes + BACKWARD * backwards,
            }
    return results, costs


def shared(learner: Learner, prompt: Prompt, conditions: Conditions, start: int, counts: Counter[str]) -> Learned:
    """Stage 3's own iteration; returns the gradient of its first update."""
    optimizer, first = optimizer_of(learner), []
    learner.forwards.clear()
    drawn = learner.iteration(start, [prompt], {prompt.key: conditions}, range(1))
    for update in drawn.updates:
        learner.accumulate(update)
        first = first or [-weight.grad.clone() for weight in learner.weights]
        taken(learner, optimizer)
    counts.update(learner.forwards)
    return Learned(first, drawn.updates[0].groups[0].advantages)


def looped(  # noqa: PLR0913  shared's arguments and one more
    learner: Learner, prompt: Prompt, conditions: Conditions, start: int, counts: Counter[str], advantage: torch.Tensor
) -> Learned:
    """The loop over images and steps; it learns from the advantages passed and returns its own."""
    params, network, optimizer = learner.params, learner.network, optimizer_of(learner)
    sampling, update, window = params.sampling, params.update, params.window(start)
    sigmas, noise, shape = schedule(sampling.num_steps, params.shift), Noise(params.seed, start), network.state_shape
    moves, scores, first = [], {}, []
    for picture in range(sampling.group_size):
        x, own = noise.initial(shape).to(conditions.text.device), []
        for index in range(sampling.num_steps):
            step = sde.step(sigmas, index, sampling.eta if index in window else 0.0, sampling.variant)
            before = x
            with torch.no_grad():
                x = mean = step.mean(x, network(x, level(sigmas, index, x), conditions))
            counts["rollout"] += 1
            if index in window:
                x = mean + step.std * noise.steps(index, picture + 1, shape)[picture:].to(mean)
                own.append((index, step, before, x, sde.log_prob(x, mean, step.std)))
        moves.append(own)
        drawn = list(decode_latents(learner.pipeline, unpack(x, network.layout.image)))
        for name, score in rewards(learner.scorers, drawn, prompt, params.rewards.matching).items():
            scores.setdefault(name, []).append(score)
    advantages = combined_advantage(
        {name: torch.cat(each) for name, each in scores.items()}, params.rewards.weights, update.aggregate,
        update.max_advantage,
    ).float().to(conditions.text.device)  # fmt: skip
    for part in params.parts():
        for picture in part:
            for index, step, before, after, old in moves[picture]:
                mean = step.mean(before, network(before, level(sigmas, index, before), conditions))
                ratio = (sde.log_prob(after, mean, step.std) - old).exp()
                clips = update.clips(after[0].numel())
                term = clipped_objective(ratio, advantage[picture : picture + 1], *clips)
                (-term.sum() / (len(part) * len(window))).backward()
                counts.update({"update": 1, "gradient": 1})
        first = first or [-weight.grad.clone() for weight in learner.weights]
        taken(learner, optimizer)
    return Learned(first, advantages)


def in_double(learner: Learner, conditions: Conditions) -> Conditions:
    """Let the transformer work in float64; states stay in float32."""
    learner.pipeline.transformer.double()
    return replace(
        conditions,
        text=conditions.text.double(),
        pooled=conditions.pooled.double(),
        references=conditions.references.double(),
    )


def level(sigmas: torch.Tensor, index: int, x: torch.Tensor) -> torch.Tensor:
    """The noise level of a step, as the network's input."""
    return torch.full((len(x),), float(sigmas[index]), device=x.device)


def optimizer_of(learner: Learner) -> torch.optim.Optimizer:
    """As in stage 3."""
    update = learner.params.update
    return torch.optim.AdamW(learner.weights, lr=update.learning_rate, weight_decay=update.weight_decay)


def taken(learner: Learner, optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimiser."""
    torch.nn.utils.clip_grad_norm_(learner.weights, learner.params.update.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def undone(learner: Learner) -> Iterator[None]:
    """Begin without a gradient, and put the weights back at the end."""
    before = [weight.detach().clone() for weight in learner.weights]
    learner.network.zero_grad(set_to_none=True)
    yield
    with torch.no_grad():
        for weight, value in zip(learner.weights, before, strict=True):
            weight.copy_(value)


def distance(gradient: Gradient, reference: Gradient) -> float:
    """The distance of two gradients over the length of the second."""
    first, second = (np.concatenate([part.cpu().numpy().ravel() for part in each]) for each in (gradient, reference))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def clock() -> float:
    """Seconds of this process."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
