"""One picture of given people: from Python, and from the command line."""

import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
import yaml
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, write_changing_adapter
from imports import ROOT
from PIL import Image

from mcpipe.cli.__main__ import main
from mcpipe.cli.outputs import write_pictures
from mcpipe.flux.adapters import AdapterSpec, ExpertParams
from mcpipe.flux.attention import attention_maps
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import Requests, SampleParams, encode_conditions, generate, initial_noise
from mcpipe.flux.tokens import layout
from mcpipe.objectives.flow import schedule
from mcpipe.pipelines import MultiCrafterPipeline
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render_portrait

PROMPT = "two people in a park"
SPEC = AdapterSpec(
    rank=4,
    experts=ExpertParams(num_experts=4, top_k=1, router="st", placement="ffn_out"),
    image_size=IMAGE_SIZE,
    reference_size=REFERENCE_SIZE,
    shift=2.5,
)


@pytest.fixture(scope="module")
def adapter_folder(generator_folder, tmp_path_factory):
    """An adapter that changes what the generator computes."""
    return write_changing_adapter(load_generator(generator_folder), SPEC, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def pipeline(generator_folder, adapter_folder):
    return MultiCrafterPipeline.from_pretrained(generator_folder, adapter=adapter_folder)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def by_hand(pipeline, people, seed, num_steps, shift, guidance):
    """Euler steps written out, with reference tokens put into the call of the stock transformer; and mean maps."""
    grids = layout(pipeline, IMAGE_SIZE, REFERENCE_SIZE)
    network = ReferenceFlux(pipeline.transformer, grids, guidance)
    conditions: Conditions = encode_conditions(pipeline, [PROMPT], [people])
    x = torch.randn(network.state_shape, generator=seeded(seed))[None]
    sigmas = schedule(num_steps, shift)
    maps = []
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        t = torch.full((1,), float(now))
        maps.append(attention_maps(network, x, t, conditions))
        with torch.no_grad():
            x = x + (then - now) * network(x, t, conditions)
    rows, columns = grids.image
    latents = x.reshape(1, rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, -1, 2 * rows, 2 * columns)
    with torch.no_grad():
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor)
    picture = ((pixels.sample.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0].movedim(0, -1)
    return picture.numpy(), torch.stack(maps).mean(0)


def test_the_pipeline_equals_a_loop_written_by_hand_and_the_stage_bit_for_bit(pipeline, people):
    expected, maps = by_hand(pipeline, people[0], 5, 3, 1.5, 3.5)
    out = pipeline(
        PROMPT, list(people[0]), num_inference_steps=3, guidance_scale=3.5, shift=1.5, generator=seeded(5),
        output_attention=True,
    )  # fmt: skip
    assert np.array_equal(np.asarray(out.images[0]), expected)
    torch.testing.assert_close(out.attention, maps, rtol=1e-5, atol=1e-7)
    params = SampleParams(num_steps=3, guidance=3.5, shift=1.5)
    stage = next(generate(pipeline, Requests([PROMPT], people[:1], [5], params, IMAGE_SIZE, 1)))
    assert np.array_equal(stage, expected)
    call = {"num_inference_steps": 3, "guidance_scale": 3.5, "output_type": "latent"}
    explicit, default = (
        pipeline(PROMPT, list(people[0]), **call, **shift, generator=seeded(5)).images for shift in ({"shift": 2.5}, {})
    )
    assert torch.equal(explicit, default), "the shift is the one that the adapter was trained at"
    other = pipeline(PROMPT, list(people[0]), num_inference_steps=3, generator=seeded(6), output_type="np").images[0]
    assert np.abs(other - expected / 255).max() > 0.01, "another seed, another picture"


def test_prompts_with_different_numbers_of_people_are_drawn_together(pipeline, people):
    """References may be PIL pictures of any size, generators a list; the maps need equal numbers."""
    large = [[Image.fromarray(face).resize((64, 64), 0) for face in faces] for faces in people[:2]]
    call = {"num_inference_steps": 2, "generator": [seeded(1), seeded(2)], "output_type": "latent"}
    latents = pipeline([PROMPT, PROMPT], large, **call).images
    network = ReferenceFlux(pipeline.transformer, layout(pipeline, IMAGE_SIZE, REFERENCE_SIZE), 4.0)
    assert latents.shape[0] == 2
    assert not torch.equal(initial_noise(network, [1]), initial_noise(network, [2]))
    alone = pipeline(PROMPT, large[1], num_inference_steps=2, generator=seeded(2), output_type="latent").images
    torch.testing.assert_close(latents[1:], alone, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="as many references for every prompt"):
        pipeline([PROMPT, PROMPT], large, output_attention=True)


def test_references_of_every_accepted_kind_give_the_same_picture(pipeline, people, tmp_path):
    faces = people[0]
    for number, face in enumerate(faces):
        Image.fromarray(face).save(tmp_path / f"{number}.png")
    shares = torch.tensor(faces / 255, dtype=torch.float32)
    files = [tmp_path / f"{number}.png" for number in range(len(faces))]

    def drawn(prompt, references, seeds=5):
        generators = [seeded(5) for _ in prompt] if isinstance(prompt, list) else seeded(5)
        call = {"num_inference_steps": 1, "output_type": "latent"}
        return pipeline(prompt, references, generator=generators, **call).images

    expected = drawn(PROMPT, list(faces))
    for references in (
        faces, files, [str(file) for file in files], tuple(Image.open(file) for file in files), faces / 255, shares,
        list(shares.movedim(-1, 1)), [np.dstack([face, np.full(face.shape[:2], 255, np.uint8)]) for face in faces],
    ):  # fmt: skip
        assert torch.equal(drawn(PROMPT, references), expected)
    both = drawn([PROMPT, PROMPT], np.stack([faces, faces]))
    torch.testing.assert_close(both[:1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "references", "generator", "reason"),
    [
        (PROMPT, [], None, "no references for the prompt 'two people in a park'"),
        (
            PROMPT,
            "face.png",
            None,
            "no references for the prompt .* give a list of images, one per person, each a path",
        ),
        (PROMPT, Image.new("RGB", (8, 8)), None, "no references for the prompt"),
        (PROMPT, np.zeros((8, 8, 3), np.uint8), None, "no references for the prompt"),
        (PROMPT, None, None, "no references for the prompt"),
        (
            PROMPT,
            [np.full((8, 8, 3), np.nan)],
            None,
            r"references\[0\] holds values from nan to nan; accepted are a path",
        ),
        (
            [PROMPT, PROMPT],
            [[np.zeros((8, 8, 3), np.uint8)], [None]],
            None,
            r"references\[1\]\[0\] is of type NoneType",
        ),
        (
            [PROMPT, PROMPT],
            np.zeros((2, 8, 8, 3), np.uint8),
            None,
            "2 prompts, but 0 sets of references; give a list",
        ),
        ([PROMPT, PROMPT], [[np.zeros((8, 8, 3), np.uint8)]], None, "2 prompts, but 1 sets of references"),
        (PROMPT, [np.zeros((8, 9, 3), np.uint8)], None, r"references\[0\] measures 9 x 8 px"),
        (PROMPT, [np.zeros((8, 8, 3), np.uint8)], [seeded(1), seeded(2)], "1 prompts, but 2 generators"),
    ],
)
def test_the_pipeline_says_what_does_not_fit(pipeline, prompt, references, generator, reason):
    with pytest.raises(ValueError, match=reason):
        pipeline(prompt, references, generator=generator)


def test_the_pipeline_asks_for_a_shift_that_nobody_tells(pipeline, people, monkeypatch):
    monkeypatch.setattr(pipeline, "spec", SPEC.model_copy(update={"shift": None}))
    with pytest.raises(ValueError, match=r"adapter.json\); give shift="):
        pipeline(PROMPT, list(people[0]))


@pytest.fixture
def project(generator_folder, adapter_folder, tmp_path, monkeypatch, root):
    """A folder with settings whose generator is the random one, and two portraits."""
    settings = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    settings["models"] |= {"generator": str(generator_folder), "faces": str(root / settings["models"]["faces"])}
    settings["generate"]["sample"]["num_steps"] = 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copytree(adapter_folder, tmp_path / "adapter")
    for number in range(2):
        rng = world_rng("references", 1, number)
        Image.fromarray(render_portrait(sample_identity(rng), rng, 160).rgb).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(out, *more, references=("0.png", "1.png")):
    people = [word for file in references for word in ("--reference", file)]
    return ["generate", *people, "--prompt", PROMPT, "--out", str(out), "--adapter", "adapter", *more]


def test_generate_draws_the_same_picture_for_the_same_seed_and_shows_where_each_reference_looked(project, capsys):
    for out, seed in (("a.png", "3"), ("b/b.png", "3"), ("c.png", "4")):
        assert main(request(out, "--seed", seed, "--attention", f"maps/{seed}")) == 0
    stdout = capsys.readouterr().out
    assert "a.png: 32 x 32 pixels" in stdout
    assert "where reference 2 looked" in stdout
    pictures = [(project / name).read_bytes() for name in ("a.png", "b/b.png", "c.png")]
    assert pictures[0] == pictures[1] != pictures[2]
    maps = [np.asarray(Image.open(project / "maps" / "3" / f"reference_{i}.png")) for i in (1, 2)]
    assert maps[0].shape == (32, 32, 3)
    assert not np.array_equal(*maps)
    assert sorted(file.name for file in (project / "maps" / "4").iterdir()) == ["reference_1.png", "reference_2.png"]


def damage_weights(project):
    file = project / "adapter" / "multicrafter_experts.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def widen(project):
    text = (project / "adapter" / "adapter.json").read_text(encoding="utf-8")
    (project / "adapter" / "adapter.json").write_text(text.replace('"rank": 4', '"rank": 8'), encoding="utf-8")


def blank(project):
    Image.new("RGB", (160, 160), "white").save(project / "1.png")


def huge(project):
    """As Pillow sees it: a picture of 200 Mpx takes seconds to write."""
    file = project / "1.png"
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    file.write_bytes(data)


def side_by_side(project):
    both = np.concatenate([np.asarray(Image.open(project / f"{i}.png")) for i in (0, 1)], axis=1)
    Image.fromarray(both).save(project / "1.png")


@pytest.mark.parametrize(
    ("spoil", "arguments", "reason"),
    [
        (
            None,
            {"references": ["0.png", "1.png", "0.png"]},
            "3 references, but the adapter was trained on pictures of 2",
        ),
        (None, {"references": ["0.png", "gone.png"]}, "no reference picture gone.png"),
        (
            lambda project: (project / "1.png").write_text("text", encoding="utf-8"),
            {},
            "reference 1.png: unreadable (it is in no image format that Pillow decodes); give an image file",
        ),
        (huge, {}, "reference 1.png: unreadable (Image size (400000000 pixels) exceeds limit"),
        (blank, {}, "reference 1.png: no face"),
        (side_by_side, {}, "reference 1.png: several faces (2 faces); give a picture of exactly one face"),
        (damage_weights, {}, "multicrafter_experts.safetensors is damaged"),
        (widen, {}, "does not fit"),
        (None, {"more": ["-S", "models.generator=adapter"]}, "model_index.json"),
        (None, {"more": ["-S", f"models.generator={ROOT / 'zoo' / 'generator'}"]}, "was trained on another generator"),
        (None, {"more": ["-S", "generate.sample.steps=3"]}, "there is no setting generate.sample.steps"),
        (None, {"more": ["-S", "generate.sample.num_steps=0"]}, "generate.sample.num_steps"),
        (None, {"more": ["--prompt", " "]}, "the prompt is empty"),
        (None, {"more": ["--size", "640*480"]}, "WIDTHxHEIGHT in pixels, such as 640x480, not '640*480'"),
        (None, {"more": ["--size", "48x30"]}, "image height 30 px is no multiple of 8 px"),
        (None, {"more": ["--seed", "99999999999999999999"]}, "from -9223372036854775808 to 18446744073709551615"),
        (None, {"out": "picture"}, "should end as a picture does"),
        (None, {"out": "picture.psd"}, "should end as a picture does"),
        (None, {"out": "picture.emf"}, "should end as a picture does"),
        (None, {"out": "0.png/picture.png"}, "0.png/picture.png: Not a directory"),
        (None, {"out": "adapter.png"}, "adapter.png is a folder"),
        (None, {"out": "reference_1.png", "more": ["--attention", "."]}, "get in each other's way"),
        (None, {"more": ["--attention", "0.png"]}, "0.png/reference_1.png: Not a directory"),
        (None, {"more": ["--attention", "maps"]}, "maps/reference_2.png is a folder"),
    ],
)
def test_generate_says_in_one_line_what_is_wrong(project, capsys, spoil, arguments, reason):
    for folder in ("adapter.png", "maps/reference_2.png"):
        (project / folder).mkdir(parents=True)
    if spoil:
        spoil(project)
    words = request(
        arguments.get("out", "out.png"),
        *arguments.get("more", []),
        references=arguments.get("references", ["0.png", "1.png"]),
    )
    assert main(words) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert reason in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert not list(project.glob("out.png"))


def test_places_are_looked_at_before_anything_is_loaded(project, capsys):
    assert main(request("0.png/picture.png", "-S", "models.faces=gone", "-S", "models.generator=gone")) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_pictures_are_written_all_or_none(tmp_path):
    first, clear = tmp_path / "maps" / "a.png", tmp_path / "b.jpg"
    picture = Image.new("RGB", (4, 4))
    first.parent.mkdir()
    first.write_bytes(b"older")
    with pytest.raises(OSError, match="cannot write mode RGBA as JPEG"):
        write_pictures({first: picture, clear: Image.new("RGBA", (4, 4))})
    assert first.read_bytes() == b"older"
    assert sorted(tmp_path.rglob("*")) == [first.parent, first]
    write_pictures({first: picture, clear: picture})
    assert [Image.open(file).size for file in (first, clear)] == [(4, 4)] * 2
    assert sorted(tmp_path.rglob("*")) == [clear, first.parent, first]


def test_generate_without_references_is_a_wrong_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--prompt", PROMPT, "--out", "x.png"])
    assert stop.value.code == 2
    assert "--reference" in capsys.readouterr().err


class TrueFinder:
    """Cuts the object that its phrase says out of an image of it; knows one phrase."""

    def __init__(self, size):
        self.size = size

    def crop(self, picture, phrase):
        return picture[: self.size, : self.size] if phrase == "a leather bag" else None


@pytest.fixture
def with_objects(project, monkeypatch):
    """The project with pictures of bags, and a finder that knows bags alone."""
    from mcpipe.steps.object_finder import ObjectModels

    for name in ("bag.png", "a:b.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (64, 64, 3), np.uint8)).save(project / name)
    monkeypatch.setattr(ObjectModels, "finder", lambda _models, _min_score, size: TrueFinder(size))
    return project


def test_people_and_objects_are_given_together(with_objects, capsys):
    mixed = ("bag.png:a leather bag", "0.png")
    assert main(request("a.png", references=mixed)) == 0
    assert main(request("b.png", references=mixed[::-1])) == 0
    assert main(request("c.png", references=mixed[1:])) == 0
    assert (
        main(
            request(
                "d.png",
                references=mixed[:1],
            )
        )
        == 0
    )
    capsys.readouterr()
    assert len({(with_objects / f"{name}.png").read_bytes() for name in "abcd"}) == 4


def test_an_object_needs_no_recogniser_and_a_person_no_grounder(with_objects, capsys):
    assert main(request("a.png", "-S", "models.faces=gone", references=["bag.png:a leather bag"])) == 0
    assert main(request("b.png", "-S", "models.grounder=gone", references=["0.png"])) == 0


@pytest.mark.parametrize(("references", "reason"), [
    (["bag.png:a mug"], "reference bag.png: 'a mug' is not found; give another picture or phrase"),
    (["bag.png:"], "reference bag.png:: nothing stands after the colon"),
    (["gone.png:a mug"], "no reference picture gone.png"),
    (["bag.png:a leather bag", "bag.png:A leather bag"], "two references are called 'A leather bag'"),
    (["bag.png"], "for an object say what it is, as in bag.png:'a leather bag'"),
    (["a:b.png"], "reference a:b.png: no face"),
])  # fmt: skip
def test_faults_of_objects_are_one_line(with_objects, capsys, references, reason):
    assert main(request("out.png", references=references)) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.strip().splitlines()) == 1
