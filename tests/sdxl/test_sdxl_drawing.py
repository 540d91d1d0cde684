"""The benchmark drawn by SDXL with an IP-Adapter, on a random tiny one."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from record_fixtures import pool_face, sample_of_two
from sdxl_fixtures import IMAGE_SIZE, saved_sdxl

from mcpipe.bench.controls import CONTROLS, TARGETS
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, RealTarget
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.steps.generate import ControlParams
from mcpipe.steps.generate_sdxl import SdxlArm, SdxlDrawParams, write_sdxl_images
from mcpipe.steps.sdxl_drawing import SdxlDrawing, SdxlRequest, drawn_image, strips
from mcpipe.steps.sdxl_files import SdxlFiles

PARAMS = SdxlDrawParams(
    num_steps=2, guidance=3.0, seed=5, image_size=IMAGE_SIZE, records_per_shard=4,
    controls=ControlParams(kinds=["no_references", "other_people"], num_targets=1),
)  # fmt: skip
DRAWING = SdxlDrawing(IMAGE_SIZE, 2, 3.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, plus, _, encoder = saved_sdxl(tmp_path_factory.mktemp("sdxl"))
    return SdxlFiles(folder, plus, encoder)


@pytest.fixture(scope="module")
def pipeline(files):
    return SdxlArm(files, None).load()


def references(*greys):
    return np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in greys])


def test_images_are_those_of_the_documented_lines_of_diffusers(files, pipeline):
    """With two references in two regions."""
    own = StableDiffusionXLPipeline.from_pretrained(files.pipeline, add_watermarker=False)
    own.load_ip_adapter(
        files.ip_adapter.parent.parent, subfolder="sdxl_models", weight_name=files.ip_adapter.name,
        image_encoder_folder="models/image_encoder",
    )  # fmt: skip
    own.set_progress_bar_config(disable=True)
    halves = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    halves[0, :, : IMAGE_SIZE // 2] = halves[1, :, IMAGE_SIZE // 2 :] = 255
    masks = IPAdapterMaskProcessor().preprocess([Image.fromarray(half) for half in halves], IMAGE_SIZE, IMAGE_SIZE)
    masks = masks.reshape(1, 2, IMAGE_SIZE, IMAGE_SIZE)
    torch.testing.assert_close(strips(2, IMAGE_SIZE).contiguous(), masks)
    requests = [SdxlRequest("two people", references(20, 200), 3), SdxlRequest("a park", references(90, 10), 4)]
    for request in requests:
        image = drawn_image(pipeline, request, DRAWING)
        expected = own(
            request.prompt, ip_adapter_image=[[Image.fromarray(each) for each in request.references]],
            num_inference_steps=2, guidance_scale=3.0, height=IMAGE_SIZE, width=IMAGE_SIZE, output_type="np",
            cross_attention_kwargs={"ip_adapter_masks": [masks]}, generator=torch.Generator().manual_seed(request.seed),
        ).images[0]  # fmt: skip
        assert np.abs(image.astype(int) - np.round(expected * 255)).max() <= 1


def test_without_the_adapter_references_are_nothing(pipeline):
    seen, blind = (
        [drawn_image(pipeline, SdxlRequest("a park", references(grey), 0, blind), DRAWING) for grey in (0, 255)]
        for blind in (False, True)
    )  # fmt: skip
    assert not np.array_equal(*seen)
    assert np.array_equal(*blind)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_strips_divide_an_image(number):
    masks = strips(number, 6)
    assert masks.shape == (1, number, 6, 6)
    assert torch.equal(masks.sum(1), torch.ones(1, 6, 6))
    assert masks[0, :, 0].argmax(0).tolist() == [column * number // 6 for column in range(6)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A benchmark with prompts about two people and about one, and a held-out sample."""
    root = tmp_path_factory.mktemp("inputs")
    names = [("ann", "bob"), ("ann",), ("bob", "cay"), ("ann", "cay")]
    prompts = [PairPrompt(key=f"p{i}", prompt="two people", names=each) for i, each in enumerate(names)]
    write_shards(prompts, root / "pairs" / "bench", 4)
    greys = {"ann": 0, "bob": 90, "cay": 180, "dan": 240}
    faces = [pool_face(name, references(grey)[0]) for name, grey in greys.items()]
    write_shards(faces, root / "pairs" / "faces", 4)
    target, masks = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), np.ones((2, IMAGE_SIZE, IMAGE_SIZE), bool)
    write_shards(
        [sample_of_two(f"s{i}", target, masks, references(0, 255), split=split)
         for i, split in enumerate(("train", "val", "val"))], root / "samples", 4,
    )  # fmt: skip
    return root


def test_every_prompt_has_an_image_and_its_controls_and_numbers_of_people_mix(files, inputs, tmp_path):
    write_sdxl_images(inputs / "pairs", inputs / "samples", SdxlArm(files, None), tmp_path / "start", PARAMS)
    drawn = list(read_shards(tmp_path / "start", GeneratedImage))
    assert [(each.key, each.seed, len(each.names)) for each in drawn] == [
        ("p0", 5, 2), ("p1", 6, 1), ("p2", 7, 2), ("p3", 8, 2)
    ]  # fmt: skip
    assert len({each.image.tobytes() for each in drawn}) == 4
    for kind in PARAMS.controls.kinds:
        beside = list(read_shards(tmp_path / "start" / CONTROLS / kind, GeneratedImage))
        assert [each.key for each in beside] == [each.key for each in drawn]
        assert not any(set(own.names) & set(other.names) for own, other in zip(drawn, beside, strict=True))
    (target,) = read_shards(tmp_path / "start" / CONTROLS / TARGETS, RealTarget)
    assert target.key == "s1"
    assert read_report(tmp_path / "start")["kept"] == 4


def test_an_arm_that_was_not_trained_is_named(files, inputs, tmp_path):
    arm = SdxlArm(files, tmp_path / "sft-0")
    with pytest.raises(FileNotFoundError, match=r"no .*sft-0/pytorch_lora_weights.safetensors; has the stage that"):
        write_sdxl_images(inputs / "pairs", inputs / "samples", arm, tmp_path / "images", PARAMS)
