"""Targets of two shapes in one run: positions, steps of one shape, training, reinforcement, images and scores."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_scorers import Finder, metric_scorers
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, TEXTS
from PIL import Image
from record_fixtures import pair_prompt, pool_face, sample_of_two
from rl_fixtures import BrightnessScorer, learner_of, network_of, prompts_of
from safetensors.numpy import load_file
from training_fixtures import ENCODE, MULTI, SINGLE

from mcpipe.bench.metrics import references, score
from mcpipe.core.params import read_params
from mcpipe.core.schemas.benchmark import GeneratedImage
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.flux.adapters import read_spec
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import Requests, SampleParams, encode_conditions, generate
from mcpipe.flux.tokens import appended, layout, position_ids
from mcpipe.objectives.flow import flow_loss
from mcpipe.pipelines import MultiCrafterPipeline
from mcpipe.steps import generate as drawing
from mcpipe.train.loop.data import Draws, collate, draw, read_encoded
from mcpipe.train.loop.order import grouped_index, sample_index
from mcpipe.train.rl.rollout import Noise, rollout
from mcpipe.train.supervised import predicted
from stages import s06_encode, s07_train_single, s08_train_multi

WIDE = (48, 24)
"""Width and height of the targets that are no squares: 6 x 3 tokens."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, generator_folder):
    """Samples of two shapes, encoded, and the adapters of stages 1 and 2."""
    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(3)
    records = []
    for number in range(6):
        width, height = WIDE if number % 2 else (IMAGE_SIZE, IMAGE_SIZE)
        target, closeup = (
            random.integers(256, size=(*s, 3), dtype=np.uint8) for s in ((height, width), (IMAGE_SIZE,) * 2)
        )
        masks, alone = np.zeros((2, height, width), bool), np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool)
        masks[0, 2:16, 2:14] = masks[1, 2:16, 17:30] = alone[:, 8:24, 8:24] = True
        faces = random.integers(256, size=(2, REFERENCE_SIZE, REFERENCE_SIZE, 3), dtype=np.uint8)
        split = "val" if number > 3 else "train"
        changes = {"closeups": np.stack([closeup] * 2), "closeup_masks": alone, "caption": TEXTS[0], "split": split}
        records.append(sample_of_two(f"clip_{number}", target, masks, faces, **changes))
    write_shards(records, root / "samples", 4)
    s06_encode.run(root / "samples", generator_folder, root / "encode", ENCODE)
    s07_train_single.run(root / "encode", generator_folder, root / "one", SINGLE.model_copy(update={"num_steps": 1}))
    short = MULTI.model_copy(update={"num_steps": 2, "pictures_every": 2, "text_dropout": 0.0})
    s08_train_multi.run(root / "encode", root / "one", generator_folder, root / "two", short)
    return root


def test_positions_of_grids_that_are_no_squares_are_those_of_diffusers():
    for grid in ((3, 6), (6, 3), (4, 4), (26, 40)):
        theirs = FluxPipeline._prepare_latent_image_ids(1, *grid, torch.device("cpu"), torch.float32)
        assert torch.equal(position_ids(grid), theirs)


def test_an_image_that_is_no_square_equals_the_stock_pipelines(generator, people):
    width, height = WIDE
    grids = layout(generator, WIDE, REFERENCE_SIZE)
    assert (grids.image, grids.num_image_tokens) == ((3, 6), 18)
    assert grids.reference_ids(1)[0].tolist() == [0, 3, 6]
    params = SampleParams(num_steps=2, guidance=3.5, shift=1.5)
    ours = next(generate(generator, Requests(TEXTS[:1], people[:1], [5], params, [WIDE], 1)))
    assert ours.shape == (height, width, 3)
    conditions = encode_conditions(generator, TEXTS[:1], people[:1])
    noise = torch.randn(18, generator.transformer.x_embedder.in_features, generator=torch.Generator().manual_seed(5))
    with appended(generator.transformer, conditions.references.flatten(1, 2), grids.reference_ids(2), None):
        theirs = generator(
            prompt=TEXTS[:1], height=height, width=width, num_inference_steps=2, guidance_scale=3.5,
            max_sequence_length=generator.tokenizer_2.model_max_length, latents=noise[None], output_type="np",
        ).images[0]  # fmt: skip
    assert np.abs(ours / 255 - theirs).max() < 0.0025, "no more than rounding to 8 bits"


def test_images_of_several_sizes_come_in_order(generator, people):
    params = SampleParams(num_steps=1, guidance=3.5, shift=1.5)
    sizes = [WIDE, WIDE, IMAGE_SIZE]
    requests = Requests(TEXTS, people, [1, 2, 3], params, sizes, 2)
    assert [part for part, _ in requests.runs()] == [slice(0, 2), slice(2, 3)]
    together = list(generate(generator, requests))
    assert [image.shape[:2] for image in together] == [(24, 48), (24, 48), (32, 32)]
    alone = next(generate(generator, Requests(TEXTS[2:], people[2:], [3], params, IMAGE_SIZE, 2)))
    assert np.array_equal(together[2], alone), "squares are drawn as ever"
    with pytest.raises(ValueError, match="3 prompts, 2 sizes"):
        Requests(TEXTS, people, [1, 2, 3], params, sizes[:2], 2)


def test_every_step_has_one_shape_and_every_shape_its_share():
    groups = ((0, 2, 4, 5, 6), (1,), (3, 7))
    steps = [[grouped_index(groups, 9, 3, step * 3 + place) for place in range(3)] for step in range(16)]
    owner = {index: number for number, group in enumerate(groups) for index in group}
    kinds = [{owner[index] for index in step} for step in steps]
    assert all(len(kind) == 1 for kind in kinds)
    for half in (kinds[:8], kinds[8:]):
        assert Counter(min(kind) for kind in half) == {0: 5, 1: 1, 2: 2}
    seen = Counter(index for step, kind in zip(steps, kinds, strict=True) if kind == {0} for index in step)
    assert set(seen.values()) == {6}, "30 draws of five samples"
    alone = (tuple(range(7)),)
    for batch_size in (1, 2, 5):
        assert [grouped_index(alone, 3, batch_size, place) for place in range(50)] == [
            sample_index(7, 3, place) for place in range(50)
        ]


def test_a_step_trains_on_one_shape_at_its_own_positions(run, generator):
    data = read_encoded(run / "encode")
    assert data.sizes == ((IMAGE_SIZE, IMAGE_SIZE), WIDE)
    draws = Draws(0, 2, 1.5, 0.0, one_reference=False)
    network = ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), 1.0)
    other = ReferenceFlux(generator.transformer, layout(generator, WIDE, REFERENCE_SIZE), 1.0)
    grids = []
    for step in range(2):
        drawn = [draw(data, data.train, draws, 2 * step + place) for place in range(2)]
        batch = collate(drawn, torch.device("cpu"))
        grids.append(batch.conditions.grid)
        assert batch.masks.shape[2] == batch.clean.shape[1] == network.layout_of(batch.conditions).num_image_tokens
        with torch.no_grad():
            velocity = predicted(network, batch)
            assert torch.isfinite(flow_loss(velocity, batch.clean, batch.noise))
            if batch.conditions.grid == other.layout.image:
                assert torch.equal(velocity, predicted(other, batch)), "as a network of that shape alone"
    assert set(grids) == {(4, 4), (3, 6)}
    with pytest.raises(AssertionError, match="one shape"):
        collate([draw(data, data.train, draws, place) for place in (0, 2)], torch.device("cpu"))


def test_stage_two_names_its_sizes_and_maps_and_previews_have_their_shapes(run):
    assert "sizes" not in json.loads((run / "one" / "adapter.json").read_text(encoding="utf-8")), "square close-ups"
    assert read_spec(run / "two").sizes == ((IMAGE_SIZE, IMAGE_SIZE), WIDE)
    for key, shape in (("clip_4", (4, 4)), ("clip_5", (3, 6))):
        arrays = load_file(run / "two" / "attention" / f"{key}.safetensors")
        assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(
            ("before", "after", "masks"), (2, *shape)
        )
        np.testing.assert_allclose(arrays["after"].sum((1, 2)), 1, rtol=1e-5)
    previews = {file.parent.name: Image.open(file).size for file in (run / "two" / "pictures").rglob("*.png")}
    assert previews == {"clip_4": (IMAGE_SIZE, IMAGE_SIZE), "clip_5": WIDE}


def test_the_benchmark_draws_and_scores_both_shapes(run, generator_folder, tmp_path, monkeypatch, root):
    monkeypatch.setattr(drawing, "BATCH_SIZE", 1)
    grey = {
        name: np.full((REFERENCE_SIZE,) * 2 + (3,), value, np.uint8)
        for name, value in (("a", 9), ("b", 90), ("c", 200), ("d", 30))
    }
    faces = [pool_face(name, picture) for name, picture in grey.items()]
    write_shards(faces, tmp_path / "pairs" / "faces", 4)
    prompts = [pair_prompt(f"two people {number}", *pair) for number, pair in enumerate(("ab", "cd", "bc"))]
    write_shards(prompts, tmp_path / "pairs" / "bench", 4)
    params = read_params(root / "params.yaml", "generate", drawing.GenerateParams)
    params = params.model_copy(update={"sample": SampleParams(num_steps=1, guidance=1.0, shift=1.5)})
    drawing.write_images(tmp_path / "pairs", run / "samples", run / "two", generator_folder, tmp_path / "out", params)
    images = list(read_shards(tmp_path / "out", GeneratedImage))
    assert [image.image.shape[:2] for image in images] == [(32, 32), (24, 48), (32, 32)]
    assert [image.attention.shape for image in images] == [(2, 4, 4), (2, 3, 6), (2, 4, 4)]
    finder = Finder(np.eye(3)[:2])
    pool = references(
        [pool_face(face.key, face.reference, embedding=np.eye(3)[i % 2]) for i, face in enumerate(faces)],
        metric_scorers(finder),
    )
    scores = [score(i.image, i.prompt, i.names, pool, metric_scorers(finder), i.attention) for i in images]
    assert all(each.detection_rate == 1 and 0 <= each.binding <= 1 for each in scores)


def test_reinforcement_draws_a_prompt_at_its_size(generator, people):
    network = network_of(generator)
    learner, _ = learner_of(generator, network, BrightnessScorer())
    square, alone = prompts_of(people)
    conditions = [learner.conditions_of(each) for each in (square, replace(alone, size=WIDE))]
    assert [each.grid for each in conditions] == [None, (3, 6)]
    policy = learner._policy(0)
    trajectory = rollout(network, conditions[1], policy, Noise(0, 0), Counter(), range(2))
    assert trajectory.final.shape[1:] == network.shape_of(conditions[1]) == (18, 16)
    assert [image.shape for image in learner.previews(conditions)] == [(32, 32, 3), (24, 48, 3)]
    wide = replace(alone, size=WIDE)
    group, result = learner._group(wide, conditions[1], 0, 0, Counter())
    assert len(result.scores) == policy.group_size
    assert group.trajectory.final.shape[1] == 18


def test_the_pipeline_draws_at_a_height_and_a_width(run, generator_folder, people):
    pipeline = MultiCrafterPipeline.from_pretrained(generator_folder, adapter=run / "two")
    call = {"num_inference_steps": 1, "generator": torch.Generator().manual_seed(1)}
    out = pipeline(TEXTS[0], list(people[0]), height=24, width=48, output_attention=True, **call)
    assert out.images[0].size == WIDE
    assert out.attention.shape == (1, 2, 3, 6)
    with pytest.raises(ValueError, match="image width 30 px is no multiple of 8 px"):
        pipeline(TEXTS[0], list(people[0]), height=24, width=30, **call)
    with pytest.raises(ValueError, match="give height and width, or neither: height is 24, width is None"):
        pipeline(TEXTS[0], list(people[0]), height=24, **call)
