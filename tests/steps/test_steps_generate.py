"""What the benchmark's pictures and their controls are drawn from, and what is written."""

import numpy as np
import pytest
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from processes import exit_code, forked
from record_fixtures import pair_prompt, pool_face, sample_of_two

from mcpipe.bench.controls import CONTROLS, TARGETS
from mcpipe.core.params import read_params
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, RealTarget
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.flux.adapters import AdapterSpec, add_adapter, save_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import SampleParams
from mcpipe.steps.generate import ControlParams, GenerateParams, write_images

SPEC = AdapterSpec(rank=2, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
VALUES = {"a": 10, "b": 200, "c": 90, "d": 140}
"""Grey of each person's reference."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory, generator_folder):
    """Prompts, a pool of four people, two held-out samples of three, and an adapter that changes something."""
    root = tmp_path_factory.mktemp("suite")
    faces = [
        pool_face(name, np.full((REFERENCE_SIZE, REFERENCE_SIZE, 3), value, np.uint8)) for name, value in VALUES.items()
    ]
    write_shards(faces, root / "pairs" / "faces", 4)
    prompts = [PairPrompt(key=f"{number:02d}", prompt=f"two people {number}", names=("a", "b")) for number in range(3)]
    write_shards(prompts, root / "pairs" / "bench", 16)
    random = np.random.default_rng(0)
    target = random.integers(256, size=(IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    masks, crops = (
        np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool),
        np.zeros((2, REFERENCE_SIZE, REFERENCE_SIZE, 3), np.uint8),
    )
    samples = [
        sample_of_two(f"clip-{number}", target, masks, crops, split=split)
        for number, split in enumerate(("val", "train", "val"))
    ]
    write_shards(samples, root / "samples", 4)
    (root / "model").mkdir()
    pipeline = load_generator(generator_folder)
    add_adapter(pipeline.transformer, SPEC, seed=0)
    save_adapter(pipeline.transformer, SPEC, root / "model")
    return root


@pytest.fixture
def params(root):
    default = read_params(root / "params.yaml", "generate", GenerateParams)
    return default.model_copy(update={"sample": SampleParams(num_steps=1, guidance=1.0, shift=1.5)})


def drawn(suite, generator_folder, out, params):
    write_images(suite / "pairs", suite / "samples", suite / "model", generator_folder, out, params)
    return out


def images(folder):
    return list(read_shards(folder, GeneratedImage))


def test_controls_stand_beside_the_pictures_with_the_same_noise(suite, generator_folder, tmp_path, params):
    out = drawn(suite, generator_folder, tmp_path / "images", params)
    pictures = images(out)
    assert [(picture.key, picture.names, picture.seed) for picture in pictures] == [
        (f"{number:02d}", ("a", "b"), number) for number in range(3)
    ]
    for picture in pictures:
        np.testing.assert_allclose(picture.attention.sum(axis=(1, 2)), [1, 1], rtol=1e-5)
    controls = {kind: images(out / CONTROLS / kind) for kind in params.controls.kinds}
    assert [{picture.names for picture in controls[kind]} for kind in ("no_references", "swapped")] == [
        {()}, {("b", "a")}
    ]  # fmt: skip
    assert all(set(picture.names) == {"c", "d"} for picture in controls["other_people"])
    for control in controls.values():
        assert [picture.seed for picture in control] == [0, 1, 2]
        for changed, original in zip(control, pictures, strict=True):
            assert np.any(changed.image != original.image), "references change the picture"
    (first, second) = read_shards(out / CONTROLS / TARGETS, RealTarget)
    assert (first.key, second.key) == ("clip-0", "clip-2"), "held-out samples alone"
    assert first.image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    facts = read_report(out)["facts"]
    assert (facts["targets"], facts["controls"]) == (2, ["no_references", "other_people", "swapped"])


def test_pictures_without_references_depend_on_none(suite, generator_folder, tmp_path, params):
    alone = params.model_copy(update={"controls": ControlParams(kinds=["no_references"], num_targets=1)})
    first = drawn(suite, generator_folder, tmp_path / "first", alone)
    other = tmp_path / "pairs"
    write_shards([pool_face(n, np.full((16, 16, 3), 255 - v, np.uint8)) for n, v in VALUES.items()], other / "faces", 4)
    write_shards(list(read_shards(suite / "pairs" / "bench", PairPrompt)), other / "bench", 4)
    write_images(other, suite / "samples", suite / "model", generator_folder, tmp_path / "second", alone)
    pictures, floors = (
        [[image.image for image in images(folder / part)] for folder in (first, tmp_path / "second")]
        for part in ("", f"{CONTROLS}/no_references")
    )
    assert np.array_equal(*floors)
    assert not np.array_equal(*pictures)
    assert len(list(read_shards(first / CONTROLS / TARGETS, RealTarget))) == 1


def test_references_are_ordered_by_the_seed_when_shuffled(suite, generator_folder, tmp_path, params):
    controls = ControlParams(kinds=["swapped"], num_targets=0)
    bare = params.model_copy(update={"controls": controls, "shuffle_references": False})
    shuffled = bare.model_copy(update={"shuffle_references": True})
    fixed, once, again = (
        drawn(suite, generator_folder, tmp_path / name, chosen)
        for name, chosen in (("fixed", bare), ("once", shuffled), ("again", shuffled))
    )
    swapped = images(fixed / CONTROLS / "swapped")
    changed = 0
    for plain, turned, first, second in zip(images(fixed), swapped, images(once), images(again), strict=True):
        assert np.array_equal(first.image, second.image)
        assert first.names == ("a", "b")
        is_changed = not np.array_equal(first.image, plain.image)
        assert np.array_equal(first.image, turned.image if is_changed else plain.image)
        changed += is_changed
    assert changed in (1, 2), "seeds 0 to 2 hold both orders"


def test_a_pool_without_other_people_is_refused_before_anything_is_written(suite, generator_folder, tmp_path, params):
    few = tmp_path / "pairs"
    write_shards([pool_face(name, np.zeros((16, 16, 3), np.uint8)) for name in "ab"], few / "faces", 4)
    write_shards([pair_prompt("two people", "a", "b")], few / "bench", 4)
    with pytest.raises(ValueError, match=r"other_people needs 2 faces .* add portraits"):
        write_images(few, suite / "samples", suite / "model", generator_folder, tmp_path / "images", params)
    assert not (tmp_path / "images").exists()


def test_two_processes_draw_the_same_bytes_as_one(suite, generator_folder, tmp_path, params, monkeypatch):
    few = params.model_copy(update={"controls": ControlParams(kinds=["swapped"], num_targets=1)})
    folders = []
    for workers in ("1", "2"):
        monkeypatch.setenv("MCPIPE_WORKERS", workers)
        stage = forked(drawn, suite, generator_folder, tmp_path / workers, few)
        stage.start()
        assert exit_code(stage) == 0
        folders.append(tmp_path / workers)
    contents = [{file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.tar")} for folder in folders]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
