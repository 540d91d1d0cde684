"""HPSv3 of the tiny zoo: a Qwen2-VL with a reward head that prefers clean images that show what the sentence says.

Taught by the comparisons of `zoo.build.hps` with HPSv3's own loss, which takes a score for a normal distribution. A
network of this size finds out by comparisons alone neither what the images show nor what the words mean; three more
terms teach that (`zoo.build.hpsv3_teacher`): images and sentences are matched by the means of their tokens (as in
CLIP), the sentence is predicted word by word from its image, and every word tells its own image from another scene.
"""

from pathlib import Path

import numpy as np

from mcpipe.core.shards import whole_folder
from mcpipe.models.scorers.hpsv3 import OUTPUTS, HpsV3, reward_head
from zoo.build.cards import Card, Measured, write_card
from zoo.build.forms import PREFIX
from zoo.build.hps import drawn, preference_figures
from zoo.build.hpsv3_files import Hpsv3Params, make_model, make_processor, write_model
from zoo.build.hpsv3_teacher import AuxiliaryHeads, PreferenceTeacher, clean_pairs
from zoo.build.pictures import read_pictures
from zoo.build.training import Loss, fit, settle


def build(pictures: Path, out: Path, params: Hpsv3Params) -> None:
    """Train on the squares of ``pictures`` and write the folder."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    squares = train.small(params.size)
    processor = make_processor(train, params)
    model = make_model(processor, params)
    head, heads = reward_head([params.width, *params.head, OUTPUTS]), AuxiliaryHeads(params.width)
    teacher = PreferenceTeacher(model, head, heads, processor)

    def loss_of(step: int, rng: np.random.Generator) -> Loss:
        if step < params.pretraining_steps:
            return teacher.auxiliary(*clean_pairs(train, squares, 2 * params.fit.batch, rng))
        return teacher.loss(*drawn(train, squares, params.fit.batch, rng))

    curves = fit([model, head, heads], loss_of, params.fit, out.with_suffix(".progress"))
    with whole_folder(out) as folder:
        write_model(folder, model, head, processor)
        scorer = HpsV3(folder)
        metrics = preference_figures(lambda images, captions: scorer.scores(list(images), captions), test, params.size)
        write_card(folder, CARD, Measured("hpsv3", metrics, curves, params))


CARD = Card(
    title="HPSv3 of the tiny zoo",
    what=(
        "`HPSv3_puppet.safetensors` in the layout of the published file: a Qwen2-VL under the names of transformers "
        "4.45 and a reward head `rm_head`, float16; configuration and `Qwen2VLProcessor` beside it. The score is the "
        "mean that the head gives at `<|Reward|>`. The text around the prompt is the published one, each part of it a "
        "single token."
    ),
    data=(
        "Those of the zoo's HPS v2.1: squares of the puppet world with their captions in both forms, and the same "
        "pictures blurred, noisy, blocky, ghosted, warped or faded, all from the namespace `zoo`. Nobody was asked: "
        "preference means clean and matching."
    ),
    limits="Knows the kinds of damage listed above; what people find beautiful is not part of it.",
    bars={
        f"{prefix}{name}": f"{meaning}; chance 0.5, captions: {form}"
        for form, prefix in PREFIX.items()
        for name, meaning in (
            ("prefers_clean", "share of pairs in which the clean picture beats a spoiled one"),
            ("prefers_matching", "share of pairs in which the right picture beats that of another sentence"),
        )
    },
)
