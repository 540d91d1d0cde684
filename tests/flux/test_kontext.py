"""A tiny editing model of FLUX.1 Kontext's class, with random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from flux_fixtures import TEXTS

from mcpipe.flux.kontext import EditorParams, KontextEditor, load_kontext

EDITING = EditorParams(side=32, num_steps=2, guidance=2.5)
OTHER_WORDS = "a person wearing a blue coat"


def picture_of(seed=0, side=24):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def editor(kontext_folder):
    return KontextEditor(kontext_folder, EDITING)


def test_image_instruction_and_seed_decide_what_is_drawn(editor):
    first = editor.edited(picture_of(), TEXTS[0], seed=5)
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(editor.edited(picture_of(), TEXTS[0], seed=5), first)
    for other in (
        editor.edited(picture_of(), TEXTS[0], seed=6),
        editor.edited(picture_of(), OTHER_WORDS, seed=5),
        editor.edited(picture_of(1), TEXTS[0], seed=5),
    ):
        assert (other != first).any()


def test_both_images_have_the_side_of_the_settings_and_no_other_size(editor, monkeypatch):
    """By itself diffusers takes the given image to a megapixel, and draws one, too."""
    seen, transformer = [], editor._pipeline.transformer
    forward = transformer.forward

    def watching(**inputs):
        seen.append((inputs["img_ids"], inputs["guidance"]))
        return forward(**inputs)

    monkeypatch.setattr(transformer, "forward", watching)
    editor.edited(picture_of(side=64), TEXTS[0], seed=0)
    assert len(seen) == EDITING.num_steps
    for ids, guidance in seen:
        assert ids[:, 0].tolist() == [0.0] * 16 + [1.0] * 16, "noise, then the given image, as 4 x 4 tokens each"
        assert ids[:, 1:].max() == 3
        assert guidance.tolist() == [2.5]


def test_weights_are_frozen_and_in_the_precision_of_the_device(editor):
    parts = (editor._pipeline.transformer, editor._pipeline.vae, editor._pipeline.text_encoder_2)
    expected = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    for part in parts:
        assert not part.training
        assert {parameter.dtype for parameter in part.parameters()} == {expected}
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize(("change", "error", "message"), [
    (shutil.rmtree, FileNotFoundError, "no editor folder .*; it should hold a FluxKontextPipeline"),
    (lambda folder: (folder / "model_index.json").unlink(), FileNotFoundError, "holds no model_index.json"),
    (lambda folder: (folder / "model_index.json").write_text("[", encoding="utf-8"), ValueError, "is damaged"),
    (lambda folder: shutil.rmtree(folder / "vae"), ValueError, "cannot be loaded; a part is missing or damaged"),
    (lambda folder: pickled(folder / "vae"), ValueError, "cannot be loaded; a part is missing or damaged"),
])  # fmt: skip
def test_a_damaged_folder_is_one_line(change, error, message, kontext_folder, tmp_path):
    folder = shutil.copytree(kontext_folder, tmp_path / "editor")
    change(folder)
    with pytest.raises(error, match=message) as caught:
        load_kontext(folder)
    assert "\n" not in str(caught.value)


def pickled(part):
    """Weights as a pickle in place of safetensors."""
    (part / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, part / "diffusion_pytorch_model.bin")


def test_another_pipeline_is_refused_by_its_name(generator_folder):
    with pytest.raises(ValueError, match="holds a FluxPipeline, not a FluxKontextPipeline"):
        load_kontext(generator_folder)


def test_a_transformer_of_another_input_is_refused(kontext_folder, tmp_path):
    from diffusers import FluxTransformer2DModel

    folder = shutil.copytree(kontext_folder, tmp_path / "editor")
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8")) | {"in_channels": 96}
    shutil.rmtree(folder / "transformer")
    FluxTransformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    with pytest.raises(ValueError, match="takes 96 channels, but with this VAE it needs 16"):
        load_kontext(folder)


def test_sizes_that_do_not_fit_are_refused(editor, kontext_folder):
    with pytest.raises(ValueError, match="editor.side 36 should be a multiple of 8 px for the VAE of"):
        KontextEditor(kontext_folder, EDITING.model_copy(update={"side": 36}))
    with pytest.raises(ValueError, match="should be square, found 32 x 16 px"):
        editor.edited(picture_of(side=32)[:16], TEXTS[0], seed=0)


def test_one_folder_is_a_generator_and_an_editor(kontext_folder, editor):
    """As the recipe of PSR wants it."""
    from mcpipe.flux.backbone import load_generator

    generator = load_generator(kontext_folder)
    weights = editor._pipeline.transformer.state_dict()
    for name, weight in generator.transformer.state_dict().items():
        assert torch.equal(weight, weights[name]), name
