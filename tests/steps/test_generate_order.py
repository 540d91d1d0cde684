"""The order in which the benchmark's references are given to the generator."""

import numpy as np
from record_fixtures import pair_prompt, pool_face

from mcpipe.core.params import read_params
from mcpipe.core.schemas.benchmark import GeneratedImage
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.steps import generate as step


def test_references_are_ordered_by_the_seed_when_shuffled(tmp_path, monkeypatch, root):
    faces = {name: np.full((16, 16, 3), value, np.uint8) for name, value in (("a", 10), ("b", 200))}
    for part in ("bench", "faces"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
    write_shards([pool_face(name, face) for name, face in faces.items()], tmp_path / "pairs" / "faces", 4)
    prompts = [pair_prompt(f"two people {number}", "a", "b") for number in range(16)]
    prompts = [type(one)(key=f"{number:02d}", prompt=one.prompt, faces=one.faces) for number, one in enumerate(prompts)]
    write_shards(prompts, tmp_path / "pairs" / "bench", 16)
    firsts = []

    def drawn(_pipeline, _prompts, references, seeds, *_arguments, **_sizes):
        firsts.append([int(pictures[0, 0, 0, 0]) for pictures in references])
        return iter([np.zeros((32, 32, 3), np.uint8) for _ in seeds])

    monkeypatch.setattr(step, "load_generator", lambda _folder: None)
    monkeypatch.setattr(
        step, "load_adapter", lambda *_: AdapterSpec(rank=4, experts=None, image_size=32, reference_size=16)
    )
    monkeypatch.setattr(step, "generate", drawn)
    params = read_params(root / "params.yaml", "generate", step.GenerateParams)
    for number, shuffled in enumerate((False, True, True)):
        chosen = params.model_copy(update={"shuffle_references": shuffled})
        step.write_images(tmp_path / "pairs", tmp_path, tmp_path, tmp_path / f"out{number}", chosen)
    fixed, *shuffled = firsts
    assert set(fixed) == {10}
    assert set(shuffled[0]) == {10, 200}
    assert shuffled[0] == shuffled[1]
    images = list(read_shards(tmp_path / "out1", GeneratedImage))
    assert all(image.faces == ("a", "b") for image in images)
