"""What is trained and scored, one step after the other by the stages of the pipeline; what is finished is kept."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float
from pydantic import Field

from mcpipe.core.params import Params, check_params, read_params
from mcpipe.steps.evaluate import EvaluateParams
from mcpipe.steps.generate import GenerateParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.rollout_log import SCORES
from stages import s10_train_rl, s11_generate, s12_evaluate

START, IPPO, GRPO = "start", "ippo", "grpo"
TITLES = {
    START: "stage 2, where all begin",
    IPPO: "IPPO: one ratio per trajectory, Hungarian",
    GRPO: "one ratio per step (GRPO)",
}
CHANGES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    START: {"update": {"learning_rate": 1e-12}},
    IPPO: {"update": {"ratio": "sequence"}},
    GRPO: {"update": {"ratio": "step"}},
}
"""Settings of train_rl in which an arm differs. The start draws what the others draw and learns nothing of it."""
MODELS = ("faces", "faces_heldout", "clip", "dino", "hps", "generator")
NOISE_STRIDE = 1000
"""Between the noise of two drawings of the benchmark's pictures."""

logger = logging.getLogger("alignment")


class Plan(Params):
    """What decides the outcome, beside params.yaml and the adapter."""

    seeds: list[int] = Field(min_length=1)
    iterations: int = Field(ge=1)
    prompts: int = Field(ge=1)
    """Per iteration."""
    learning_rate: float = Field(gt=0)
    move_every: int = Field(ge=1)
    """Iterations after which the window moves."""
    drawings: int = Field(ge=1)
    """How often every run draws the benchmark, from other noise each time."""


@dataclass(frozen=True)
class Place:
    """Folders and files of a project."""

    root: Path
    adapter: Path
    """Adapter of stage 2."""
    work: Path
    """Where the runs are kept."""

    @property
    def pairs(self) -> Path:
        """Prompts and faces."""
        return self.root / "data" / "pairs"

    def model(self, name: str) -> Path:
        """A frozen model by its key in params.yaml."""
        return self.root / yaml.safe_load((self.root / "params.yaml").read_text())["models"][name]

    def settings(self, section: str, model: type[Params]) -> Any:  # noqa: ANN401  an instance of the model
        """A section of params.yaml."""
        return read_params(self.root / "params.yaml", section, model)


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    folder: Path

    def images(self, drawing: int) -> Path:
        """The pictures of one drawing of the benchmark."""
        return self.folder / f"images-{drawing}"

    def results(self, drawing: int) -> Path:
        """Their scores."""
        return self.folder / f"results-{drawing}"

    def scores(self, metrics: Sequence[str]) -> dict[str, list[float]]:
        """Scores of the benchmark's prompts by metric, each the mean over all drawings.

        Raises:
            ValueError: drawings answered different prompts.
        """
        tables = [pq.read_table(file / "rows.parquet") for file in sorted(self.folder.glob("results-*"))]
        drawn = [{row["key"]: row for row in table.to_pylist()} for table in tables]
        if any(rows.keys() != drawn[0].keys() for rows in drawn):
            raise ValueError(f"{self.folder} holds drawings of different prompts; delete it")
        return {
            key: [float(np.mean([float(rows[key][metric]) for rows in drawn])) for metric in metrics]
            for key in sorted(drawn[0])
        }

    @property
    def rewarded(self) -> list[dict[str, Any]]:
        """Scores of every picture drawn in training."""
        return [json.loads(line) for line in (self.folder / "model" / SCORES).read_text().splitlines()]

    @property
    def stopped(self) -> dict[str, Any] | None:
        """Before which iteration the training was stopped, and why."""
        return json.loads((self.folder / "model" / "report.json").read_text())["facts"]["stopped"]

    def curve(self, name: str) -> Float[np.ndarray, " updates"]:
        """A number of every optimiser step."""
        file = self.folder / "model" / "live" / "plots" / "metrics" / f"{name}.tsv"
        with file.open() as lines:
            return np.array([float(row[name]) for row in csv.DictReader(lines, delimiter="\t")])


def runs(place: Place, plan: Plan) -> list[Run]:
    """All arms with all seeds; seeds change slowest, so that whole comparisons come first."""
    return [Run(arm, seed, place.work / f"{arm}-s{seed}") for seed in plan.seeds for arm in TITLES]


def settle(place: Place, plan: Plan) -> None:
    """Write down what the runs of a folder are made with, or make sure that it is the same.

    Raises:
        ValueError: the folder holds runs that were made otherwise, or the settings leave nothing to compare.
    """
    sections = {"generate": GenerateParams, "evaluate": EvaluateParams}
    own = place.settings("train_rl", TrainRLParams)
    if own.update.updates_per_rollout == 1:
        raise ValueError("with rl_update.updates_per_rollout 1 every ratio is 1, whichever it is; set it to 2 or more")
    trained = {arm: training(own, plan, Run(arm, 0, place.work)).model_dump(mode="json") for arm in TITLES}
    wanted = {
        "plan": plan.model_dump(exclude={"seeds"}),
        "settings": {name: place.settings(name, model).model_dump(mode="json") for name, model in sections.items()}
        | {"train_rl": trained},
        "adapter": digest(place.adapter),
        "pairs": digest(place.pairs),
    }
    file = place.work / "plan.json"
    if not file.exists():
        place.work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(wanted, indent=1) + "\n")
    found = json.loads(file.read_text())
    if others := [name for name in wanted if found.get(name) != wanted[name]]:
        raise ValueError(
            f"{place.work} holds runs with another {' and '.join(others)}; delete it or name another --work"
        )


def digest(folder: Path) -> str:
    """Digest of all files of a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    told = []
    for file in files:
        with file.open("rb") as content:
            told.append(f"{file.relative_to(folder)} {file_digest(content, 'sha256').hexdigest()}")
    return sha256("\n".join(told).encode()).hexdigest()


def finish(place: Place, plan: Plan, run: Run) -> Iterator[str]:
    """Train, draw and score what is not there yet; tells each step before it begins."""
    faces, heldout, clip, dino, hps, generator = (place.model(name) for name in MODELS)
    model = run.folder / "model"
    if not model.exists():
        yield "train"
        params = training(place.settings("train_rl", TrainRLParams), plan, run)
        s10_train_rl.run(place.pairs, place.adapter, generator, faces, heldout, clip, hps, model, params)
    for drawing in range(plan.drawings):
        images, results = run.images(drawing), run.results(drawing)
        if not images.exists():
            yield "draw"
            params = place.settings("generate", GenerateParams)
            seed = params.seed + NOISE_STRIDE * (run.seed * plan.drawings + drawing)
            params = params.model_copy(update={"seed": seed})
            s11_generate.run(place.pairs, place.adapter if run.arm == START else model, generator, images, params)
        if not results.exists():
            yield "score"
            params = place.settings("evaluate", EvaluateParams)
            s12_evaluate.run(place.pairs, images, faces, heldout, clip, dino, hps, results, params)


def training(params: TrainRLParams, plan: Plan, run: Run) -> TrainRLParams:
    """The settings of a training."""
    settings = params.model_dump()
    settings |= {"seed": run.seed, "num_iterations": plan.iterations, "prompts_per_iteration": plan.prompts}
    settings["sampling"]["move_every"] = plan.move_every
    settings["update"]["learning_rate"] = plan.learning_rate
    settings["watch"]["pictures_every"] = 0
    for part, changes in CHANGES[run.arm].items():
        settings[part] |= changes
    return check_params(settings, TrainRLParams, "train_rl")
