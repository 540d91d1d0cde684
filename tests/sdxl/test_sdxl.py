"""SDXL with an IP-Adapter as a backbone of preference training, on a random tiny one in the published files' format."""

import json
import math
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from preference_fixtures import PREFERENCE
from sdxl_fixtures import IMAGE_SIZE, NUM_QUERIES, saved_sdxl
from training_fixtures import ENCODE, Killed, outcome

from focusdpo import sdxl_encode, sdxl_train
from focusdpo.__main__ import params
from mcpipe.core.report import read_report
from mcpipe.core.shards import write_shards
from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.tokens import pack, unpack
from mcpipe.objectives.dpo import as_noise_errors, token_errors
from mcpipe.objectives.flow import noised
from mcpipe.sdxl.backbone import load_sdxl
from mcpipe.sdxl.encoders import encode_references
from mcpipe.sdxl.levels import as_diffusion
from mcpipe.sdxl.lora import add_lora
from mcpipe.sdxl.network import ReferenceUNet, regions_of
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.preference.data import PairDraws, pair_batch, read_pairs
from mcpipe.train.preference.losses import preference_losses
from mcpipe.train.preference.params import PreferenceParams
from mcpipe.train.preference.records import DisruptedPair, SdxlPair
from mcpipe.train.preference.trainer import train_preference

NOISE = PREFERENCE.model_copy(update={"form": "noise"})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return saved_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def backbone(files):
    """Folder of the pipeline, weights of the IP-Adapter Plus, folder of its image encoder."""
    folder, plus, _, encoder = files
    return folder, plus, encoder


@pytest.fixture(scope="module")
def dip(tmp_path_factory):
    """Pairs with one and with two references; losers are noise in their masks."""
    random, pairs = np.random.default_rng(0), []
    for number in range(6):
        winner, noise = random.integers(0, 256, (2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        masks = np.zeros((1 + number % 2, IMAGE_SIZE, IMAGE_SIZE), bool)
        masks[0, 4:16, 4:12] = True
        if number % 2:
            masks[1, 8:28, 20:28] = True
        pairs.append(DisruptedPair(
            key=f"pair{number}", kind="multi" if number % 2 else "single", caption="two people", winner_similarity=1.0,
            loser_similarity=0.0, winner=winner, loser=np.where(masks.any(0)[..., None], noise, winner), masks=masks,
            references=random.integers(0, 256, (len(masks), 16, 16, 3), np.uint8),
        ))  # fmt: skip
    folder = tmp_path_factory.mktemp("dip") / "dip"
    write_shards(pairs, folder, 4)
    return folder


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, dip, backbone):
    folder = tmp_path_factory.mktemp("encoded") / "encoded"
    sdxl_encode.run(dip, *backbone, folder, ENCODE)
    return folder


@pytest.fixture(scope="module")
def loaded(backbone):
    return load_sdxl(*backbone)


@pytest.fixture
def network(loaded):
    pipeline = deepcopy(loaded)
    add_lora(pipeline.unet, 3, seed=0)
    return ReferenceUNet(pipeline, IMAGE_SIZE)


def batch_of(encoded, network, num=4):
    return pair_batch(read_pairs(encoded, SdxlPair), PairDraws(0, 1.0, True, network.levels.drawn), range(num), CPU)


def changed(conditions, **parts):
    return type(conditions)(**vars(conditions) | parts)


@pytest.mark.parametrize("kind", ["plus", "plain"])
def test_published_files_of_both_adapters_are_read(files, kind):
    folder, plus, plain, encoder = files
    pipeline = load_sdxl(folder, plus if kind == "plus" else plain, encoder)
    features = encode_references(pipeline, [np.full((16, 16, 3), grey, np.uint8) for grey in (0, 200)])
    assert features.shape[:2] == (2, 5 if kind == "plus" else 1), "four patches and their class token, or one embedding"
    tokens = pipeline.unet.encoder_hid_proj([features[None] if kind == "plus" else features.transpose(0, 1)])[0]
    assert tokens.shape[1:3] == (2, NUM_QUERIES)
    assert not any(weight.requires_grad for weight in pipeline.unet.parameters())


def test_faults_of_files_are_one_line(backbone, tmp_path):
    folder, plus, encoder = backbone
    with pytest.raises(FileNotFoundError, match="should be part of an SDXL pipeline"):
        load_sdxl(tmp_path, plus, encoder)
    with pytest.raises(FileNotFoundError, match="should be part of an IP-Adapter's weights"):
        load_sdxl(folder, tmp_path / "ip-adapter.safetensors", encoder)
    with pytest.raises(FileNotFoundError, match="CLIP vision model"):
        load_sdxl(folder, plus, tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(plus.read_bytes()[:2000])
    with pytest.raises(ValueError, match="is no usable IP-Adapter for"):
        load_sdxl(folder, cut, encoder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    file = other / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"prediction_type": "v_prediction"}
    file.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="predicts 'v_prediction'; only SDXL networks that predict noise"):
        load_sdxl(other, plus, encoder)
    with pytest.raises(ValueError, match="image size 36 px is no multiple of 8 px"):
        ReferenceUNet(load_sdxl(*backbone), 36)


@pytest.mark.parametrize("step", [0, 437, 999])
def test_a_flows_state_is_the_schedulers_and_the_noise_form_is_sdxls_own_error(network, encoded, step):
    """The reference is diffusers: its noised image, its network called as its pipeline calls it."""
    batch = batch_of(encoded, network)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    t = network.levels.drawn(torch.full((4,), (step + 0.5) / 1000))
    assert network.levels.steps(t).tolist() == pytest.approx([step] * 4)
    clean, noise = (unpack(each, network.grid) for each in (batch.winner, batch.noise))
    expected = scheduler.add_noise(clean, noise, torch.full((4,), step))
    state = noised(batch.winner, batch.noise, t)
    torch.testing.assert_close(as_diffusion(unpack(state, network.grid), t), expected, atol=1e-5, rtol=1e-4)

    given = batch.conditions
    with torch.no_grad():
        predicted = network.unet(
            expected, torch.full((4,), float(step)), encoder_hidden_states=given.text,
            added_cond_kwargs={"text_embeds": given.pooled, "image_embeds": [given.references],
                               "time_ids": torch.tensor([[32, 32, 0, 0, 32, 32]] * 4)},
            cross_attention_kwargs={"ip_adapter_masks": [given.regions.unflatten(-1, network.grid).float()]},
        ).sample  # fmt: skip
        own = token_errors(network(state, t, given), batch.winner, batch.noise)
    errors = (pack(predicted) - batch.noise).square().mean(-1)
    torch.testing.assert_close(as_noise_errors(own, t), errors, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_reference_reaches_its_own_region_alone_in_every_image(network, encoded, slot):
    batch = batch_of(encoded, network, 2)
    regions = torch.zeros(2, 2, *network.grid, dtype=torch.bool)
    regions[0, 0, :, :4] = regions[0, 1, :, 4:] = True  # left and right
    regions[1, 0, :4] = regions[1, 1, 4:] = True  # above and below
    seen = []
    layer = network.unet.get_submodule("down_blocks.1.attentions.0.transformer_blocks.0.attn2")
    layer.register_forward_hook(lambda _layer, _args, output: seen.append(output.detach()))
    references = batch.conditions.references.clone()
    for _ in range(2):
        conditions = changed(batch.conditions, references=references.clone(), regions=regions.flatten(2))
        with torch.no_grad():
            network(batch.noise, batch.t, conditions)
        references[:, slot] += torch.randn_like(references[:, slot])
    moved = (seen[0] - seen[1]).abs().amax(-1) > 1e-6
    assert torch.equal(moved, regions[:, slot].flatten(1))


def test_one_reference_is_seen_everywhere_and_several_in_their_masks():
    prior = torch.zeros(2, 2, 4, dtype=torch.bool)
    prior[0, 0, 0] = prior[1, 0, 1] = prior[1, 1, 2] = True
    regions = regions_of(prior, torch.tensor([[True, False], [True, True]]))
    assert regions[0].tolist() == [[True] * 4, [False] * 4]
    assert torch.equal(regions[1], prior[1])


def test_scores_are_cosines_of_queries_and_mean_keys_of_every_layer(network, encoded):
    batch, layers = batch_of(encoded, network, 2), {}
    for name, module in network.unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_hook(
                lambda layer, args, kwargs, _, name=name: layers.update({name: (layer, args[0], kwargs)}),
                with_kwargs=True,
            )
    with torch.no_grad(), network.matches("cosine", 1) as matches:
        network(batch.noise, batch.t, batch.conditions)
        scores = matches.mean()
        by_layer = []
        for layer, hidden, kwargs in layers.values():
            queries = layer.to_q(hidden[:1])
            keys = layer.processor.to_k_ip[0](kwargs["encoder_hidden_states"][1][0][:1]).mean(2)
            own = torch.nn.functional.cosine_similarity(keys[:, :, None], queries[:, None], dim=-1)
            side = math.isqrt(own.shape[-1])
            own = own.unflatten(-1, (side, side))
            by_layer.append(torch.nn.functional.interpolate(own, size=network.grid, mode="bilinear"))
    assert {own.shape[-1] for own in by_layer} == {8}
    assert len(by_layer) == 7
    torch.testing.assert_close(scores, torch.stack(by_layer).mean(0).flatten(2), atol=1e-5, rtol=1e-4)


def test_before_the_first_step_policy_and_reference_are_one_and_only_the_lora_learns(network, encoded):
    batch = batch_of(encoded, network)
    losses = preference_losses(network, network, batch, "focus_dpo", NOISE)
    assert losses.terms["focus_dpo"].item() == pytest.approx(math.log(2), abs=1e-6)
    assert 0 < losses.metrics["mask_area"] < 1
    losses.terms["focus_dpo"].backward()
    moved = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert moved
    assert all(".attn" in name and ".lora_B.preference." in name for name in moved)


def test_sft_and_patch_dpo_count_errors_of_the_noise_too(network, encoded):
    """e_hat = z + (1 - t) v_hat, of both images."""
    batch = batch_of(encoded, network)
    errors = []
    with torch.no_grad():
        for clean in (batch.winner, batch.loser):
            state = noised(clean, batch.noise, batch.t)
            noise = state + (1 - batch.t)[:, None, None] * network(state, batch.t, batch.conditions)
            errors.append((noise - batch.noise).square().mean(-1))
        sft, patch_dpo = (preference_losses(network, network, batch, arm, NOISE).terms for arm in ("sft", "patch_dpo"))
    assert sft["flow"].item() == pytest.approx(errors[0].mean().item(), rel=1e-3)
    weighted = (1 - batch.quality) * errors[0] + batch.quality * errors[1]
    assert patch_dpo["patch_dpo"].item() == pytest.approx(weighted.mean().item(), rel=1e-3)


def test_small_steps_lower_the_loss_and_prefer_the_winner(network, encoded):
    batch = batch_of(encoded, network)
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], 1e-2)
    for _ in range(10):
        losses = preference_losses(network, network, batch, "focus_dpo", NOISE)
        losses.terms["focus_dpo"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses.terms["focus_dpo"].item() < 0.65
    assert losses.metrics["margin"] > 0


@pytest.fixture
def trained(encoded, backbone, tmp_path):
    def run(name):
        sdxl_train.run(encoded, *backbone, tmp_path / name, NOISE)
        return tmp_path / name

    return run


def test_a_killed_training_ends_as_an_undisturbed_one_and_stock_diffusers_draws_with_it(
    trained, backbone, killed_at, tmp_path
):
    whole = outcome(trained("focus_dpo-0"))
    (tmp_path / "focus_dpo-0").rename(tmp_path / "whole")
    killed_at(2)
    with pytest.raises(Killed):
        trained("focus_dpo-0")
    killed_at(None)
    curves, weights = outcome(trained("focus_dpo-0"))
    assert curves == whole[0]
    assert {"focus_ratio", "margin", "accuracy", "mask_area"} <= curves.keys()
    assert weights.keys() == whole[1].keys()
    assert all(np.array_equal(weights[name], weight) for name, weight in whole[1].items())
    assert read_report(tmp_path / "whole")["kept"] == 6
    assert not np.array_equal(*(drawn(backbone, lora) for lora in (None, tmp_path / "whole")))


def drawn(backbone, lora):
    """An image of two references in two regions, by the documented lines of diffusers."""
    folder, plus, _ = backbone
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.load_ip_adapter(
        plus.parent.parent, subfolder="sdxl_models", weight_name=plus.name, image_encoder_folder="models/image_encoder"
    )
    if lora is not None:
        pipeline.load_lora_weights(lora)
    pipeline.set_progress_bar_config(disable=True)
    references = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    halves = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    halves[0, :, :16] = halves[1, :, 16:] = 255
    masks = IPAdapterMaskProcessor().preprocess([Image.fromarray(half) for half in halves], IMAGE_SIZE, IMAGE_SIZE)
    return pipeline(
        "two people", ip_adapter_image=[references], num_inference_steps=2, height=IMAGE_SIZE, width=IMAGE_SIZE,
        cross_attention_kwargs={"ip_adapter_masks": [masks.reshape(1, 2, IMAGE_SIZE, IMAGE_SIZE)]}, output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip


def test_the_door_takes_sdxls_own_settings():
    train = params("sdxl-train", PreferenceParams)
    assert (train.form, train.beta, train.rank, train.num_steps) == ("noise", 5000.0, 32, 40)
    assert params("train", PreferenceParams).form == "velocity"
    assert params("sdxl-encode", EncodeParams) == params("encode", EncodeParams)


@pytest.mark.parametrize(("variable", "value"), [("MCPIPE_SHARDING", "adapter"), ("MCPIPE_COMPILE", "eager")])
def test_what_sdxls_training_does_not_provide_for_is_refused(network, encoded, monkeypatch, tmp_path, variable, value):
    monkeypatch.setenv(variable, value)
    pairs, checkpoint = read_pairs(encoded, SdxlPair), Checkpoint(tmp_path)
    with pytest.raises(ValueError, match="with SDXL leave out MCPIPE_SHARDING"):
        train_preference(network, pairs, "dpo", 0, NOISE, lambda *_: None, checkpoint)
