"""The committed checkpoints of captioner, generator and scorers do what the pipeline needs, on newly drawn people."""

import json

import numpy as np
import pytest

from mcpipe.curate.captions import CAPTION_INSTRUCTIONS, PROMPT_INSTRUCTIONS
from mcpipe.curate.samples import face_crop
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.preferences import load_preference
from mcpipe.world.captions import describe_scene
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import RenderedFrame, Scene, render, sample_scene

LARGEST_MB = {
    "captioner": 2.6, "judge": 2.6, "generator": 8, "clip": 1.3, "clip_reward": 1.3, "dino": 0.7, "dinov2": 0.7,
    "hps": 3.8, "hps_reward": 2.6, "hpsv3": 0.9, "grounder": 1.9,
}  # fmt: skip


def drawn(number: int) -> tuple[Scene, RenderedFrame, RenderedFrame]:
    """A two-shot of people whom nothing was trained on, early and later."""
    rng = world_rng("tests", number)
    scene = sample_scene(rng, [sample_identity(rng), sample_identity(rng)])
    return scene, render(scene, 0.0, 320, 240), render(scene, 1.0, 320, 240)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, RenderedFrame, RenderedFrame]]:
    return [drawn(number) for number in range(16)]


def squares(scenes) -> list[np.ndarray]:
    return [late.rgb[:, 40:280] for _, _, late in scenes]


def references(frame: RenderedFrame, size: int) -> list[np.ndarray]:
    return [face_crop(frame.rgb, person.face_box, size) for person in frame.people]


@pytest.mark.parametrize("name", LARGEST_MB)
def test_checkpoint_is_small_and_has_a_card_with_its_figures(root, name):
    folder = root / "zoo" / name
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size < LARGEST_MB[name] * 1e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for metric, value in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))[name].items():
        assert f"| {metric} | {value} |" in card


def test_captions_mention_every_person_once(root, scenes):
    captioner = Qwen2_5VL(root / "zoo" / "captioner")
    instruction = CAPTION_INSTRUCTIONS["people"].format(num_subjects=2)
    captions = [
        captioner.answer([*references(early, 84), square], instruction, temperature=0, seed=0, max_tokens=120)
        for (_, early, _), square in zip(scenes, squares(scenes), strict=True)
    ]
    well_formed = [text.startswith("two people ") and text.count("a person") == 2 for text in captions]
    assert np.mean(well_formed) >= 0.9
    truth = [describe_scene(scene) for scene, _, _ in scenes]
    shirts = [
        wish.split("wearing ")[part].split(" shirt")[0] == text.split("wearing ")[part].split(" shirt")[0]
        for wish, text in zip(truth, captions, strict=True)
        if text.count("wearing ") == 2
        for part in (1, 2)
    ]
    assert np.mean(shirts) >= 0.5


def test_prompts_are_well_formed_and_vary_with_the_seed(root, scenes):
    captioner = Qwen2_5VL(root / "zoo" / "captioner")
    instruction = PROMPT_INSTRUCTIONS["people"].format(num_subjects=2)
    faces = references(scenes[0][1], 48)
    prompts = [captioner.answer(faces, instruction, temperature=1.0, seed=seed, max_tokens=120) for seed in range(6)]
    assert sum(text.count("a person") == 2 for text in prompts) >= 5
    assert len(set(prompts)) > 3


def test_clip_finds_the_caption_of_a_picture(root, scenes):
    clip = Clip(root / "zoo" / "clip")
    cosines = clip.pictures(squares(scenes)) @ clip.texts([describe_scene(scene) for scene, _, _ in scenes]).T
    assert (cosines.argmax(axis=1) == np.arange(len(scenes))).mean() >= 0.6


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_nearest_face_shows_the_same_person(root, scenes, name):
    dino = Dino(root / "zoo" / name)
    early = dino.pictures([crop for _, frame, _ in scenes for crop in references(frame, 96)])
    late = dino.pictures([crop for _, _, frame in scenes for crop in references(frame, 40)])
    assert ((early @ late.T).argmax(axis=1) == np.arange(len(early))).mean() >= 0.6


@pytest.mark.parametrize("name", ["hps", "hpsv3"])
def test_hps_prefers_clean_pictures_to_noise_and_the_right_prompt_to_a_wrong_one(root, scenes, name):
    hps = load_preference(root / "zoo" / name)
    prompts, clean = [describe_scene(scene) for scene, _, _ in scenes], squares(scenes)
    noise = np.random.default_rng(0).normal(0, 50, (len(clean), 240, 240, 3))
    spoiled = list(np.clip(np.stack(clean) + noise, 0, 255).astype(np.uint8))
    scores = hps.scores(clean, prompts)
    assert (scores > hps.scores(spoiled, prompts)).mean() >= 0.8
    assert (scores > hps.scores(clean, prompts[1:] + prompts[:1])).mean() >= 0.8


def test_generator_draws_what_the_prompt_says_in_the_prompted_colours(root):
    import torch

    from mcpipe.flux.backbone import load_generator

    pipeline = load_generator(root / "zoo" / "generator")
    prompts = [
        f"two people in a park: on the left a person with tan skin, short brown hair, wearing a {colour} shirt; "
        f"on the right a person with pale skin, long black hair, wearing a {colour} shirt"
        for colour in ("red", "blue")
    ]
    generator = torch.Generator().manual_seed(0)
    red, blue = pipeline(
        prompts,
        height=96,
        width=96,
        num_inference_steps=8,
        max_sequence_length=64,
        output_type="np",
        generator=generator,
    ).images
    chests = np.stack([red, blue])[:, 60:92, 12:84].mean(axis=(1, 2))
    redness = chests[:, 0] - chests[:, 2]
    assert redness[0] > redness[1] + 0.05
