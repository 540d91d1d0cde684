"""A learner on a random tiny generator, with a scorer whose preference is known."""

import numpy as np
import torch

from mcpipe.core.report import Report
from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.rewards import Prompt, Scorers

RL = {
    "seed": 0,
    "num_iterations": 2,
    "rank": None,
    "processes": 1,
    "prompts_per_iteration": 1,
    "shuffle_references": False,
    "shift": 3.0,
    "guidance": 3.5,
    "sampling": {
        "variant": "flow_grpo", "num_steps": 5, "eta": 0.7, "group_size": 4,
        "samples_per_pass": 2, "window_size": 2, "move_every": 1, "stride": 1, "after_window": 1.0,
    },
    "update": {
        "updates_per_rollout": 2, "ratio": "sequence", "gradient": "joint", "clip_low": 1e-4, "clip_high": 1e-4,
        "clip_dimensions": 256,
        "aggregate": "advantage", "max_advantage": 5.0, "learning_rate": 1e-3, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "ema_decay": 0.0,
    },
    "rewards": {"text": 1.4, "aesthetic": 0.7, "identity": 0.5, "semantic": 0.0, "matching": "hungarian"},
    "psr": {
        "grounder": None, "box_threshold": 0.35, "encoder": None, "phrase": "description", "judge": None,
        "preference": None,
        "temperature": 0.2, "max_tokens": 64, "attempts": 2, "seed": 0,
    },
    "min_face_score": 0.5,
    "detection_size": 256,
    "watch": {
        "pictures_every": 1, "num_prompts": 1, "max_ratio_drift": 0.5, "num_compared": 2, "max_disagreement": 0.05,
    },
}  # fmt: skip


def settings(**changes):
    """The settings above with other values in some sections, or other values at the top."""
    merged = {name: RL[name] | value if isinstance(value, dict) else value for name, value in changes.items()}
    return TrainRLParams.model_validate(RL | merged)


class BrightnessScorer:
    """Scores images by their mean brightness; sees one face, of a fixed direction."""

    def __init__(self, fault=None):
        self.fault = fault

    def similarity(self, picture, prompt, references):
        return references @ np.eye(3)[:1].T

    def pictures(self, pictures):
        if self.fault == "crash":
            raise RuntimeError("no more memory")
        return np.stack([[p.mean() / 255, 0.0, 0.0] for p in pictures])

    def texts(self, texts):
        return np.array([[1.0, 0.0, 0.0]] * len(texts))

    def scores(self, pictures, prompts):
        scores = np.array([picture.mean() / 255 for picture in pictures])
        return np.full(len(pictures), np.nan) if self.fault == "nan" else scores


class MemoryLog:
    """A rollout log in memory."""

    def __init__(self):
        self.logged, self.previewed = {}, {}

    def scores(self, iteration, scores):
        self.logged[iteration] = list(scores)

    def previews(self, iteration, images):
        self.previewed[iteration] = images


def network_of(generator, rank=4):
    """The generator with an adapter that does something."""
    experts = ExpertParams(num_experts=4, top_k=1, router="st")
    add_adapter(generator.transformer, AdapterSpec(rank=rank, experts=experts, image_size=32, reference_size=16), 0)
    random = torch.Generator().manual_seed(0)
    for parameter in generator.transformer.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)
    return ReferenceFlux(generator.transformer, layout(generator, 32, 16), 3.5)


def learner_of(generator, network, scorer, **changes):
    report = Report("train_rl")
    return Learner(generator, network, Scorers(scorer, scorer, scorer, scorer), settings(**changes), report), report


def prompts_of(people):
    """Two prompts: about two people, and about one."""
    texts = ["two people in a park", "a person with brown hair and glasses"]
    return [
        Prompt(text[:3], text, faces, np.eye(3)[: len(faces)], np.eye(3)[: len(faces)])
        for text, faces in zip(texts, people[:2], strict=True)
    ]
