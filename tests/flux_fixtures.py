"""A random tiny FLUX pipeline, saved and loaded like a real one, and encoded samples that fit it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from record_fixtures import sample_of_two

from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import write_shards

IMAGE_SIZE, REFERENCE_SIZE = 32, 16
"""Pixels; with an f4 VAE these are 16 and 4 tokens."""
TEXTS = ["two people in a park", "a person with brown hair and glasses", "on the left a person wearing a red shirt"]
INDUCTOR = pytest.mark.skipif(
    os.environ.get("MCPIPE_TEST_INDUCTOR") != "1",
    reason="inductor compiles C++ for minutes on a cold cache; set MCPIPE_TEST_INDUCTOR=1 to run it",
)


def give_values(transformer, seed=0):
    """Give every trainable weight a value that changes what is computed."""
    from mcpipe.flux.adapters import trainable

    random = torch.Generator().manual_seed(seed)
    for parameter in trainable(transformer).values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.2)


def write_changing_adapter(generator, spec, folder):
    """Write an adapter that changes what the generator computes; returns the folder."""
    from mcpipe.flux.adapters import add_adapter, save_adapter

    add_adapter(generator.transformer, spec, seed=0)
    give_values(generator.transformer)
    folder.mkdir(exist_ok=True)
    save_adapter(generator.transformer, spec, folder)
    return folder


def clip_tokenizer():
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def t5_tokenizer():
    from tokenizers import Tokenizer, models, trainers
    from transformers import T5TokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = T5TokenizerFast()._tokenizer.pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=60,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz,."),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    vocab = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, additional_special_tokens=None, model_max_length=12)


def random_pipeline(num_double=2, num_single=2):
    """FLUX with a few double and single blocks of width 64."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.5),
        vae=AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 3,
            up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
            scaling_factor=0.7,
            shift_factor=0.1,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                projection_dim=16,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        ),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=24,
                d_kv=12,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                pad_token_id=t5.pad_token_id,
                eos_token_id=t5.eos_token_id,
                is_encoder_decoder=False,
            )
        ),
        tokenizer_2=t5,
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=num_double,
            num_single_layers=num_single,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
    )


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    random_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def kontext_folder(tmp_path_factory) -> Path:
    """The same parts as an editing model of FLUX.1 Kontext's class."""
    from diffusers import FluxKontextPipeline

    parts = random_pipeline().components
    folder = tmp_path_factory.mktemp("kontext")
    FluxKontextPipeline(**parts).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def short_generator_folder(tmp_path_factory) -> Path:
    """With one block of each kind, since every block is compiled on its own."""
    folder = tmp_path_factory.mktemp("short_generator")
    random_pipeline(1, 1).save_pretrained(folder)
    return folder


@pytest.fixture
def generator(generator_folder):
    from mcpipe.flux.backbone import load_generator

    return load_generator(generator_folder)


@pytest.fixture
def people() -> list[np.ndarray]:
    """References of three pictures: of two people, of one, of two."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (num, REFERENCE_SIZE, REFERENCE_SIZE, 3), dtype=np.uint8) for num in (2, 1, 2)]


def make_samples(folder: Path, num: int = 6) -> None:
    """Records as the stage ``samples`` leaves them: noisy pictures of two people, every third held out."""
    rng = np.random.default_rng(2)
    records = [_sample(rng, f"clip_{i}", "val" if i % 3 == 2 else "train") for i in range(num)]
    write_shards(records, folder, 4)


def _sample(rng: np.random.Generator, key: str, split: str) -> Sample:
    masks = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool)
    masks[0, 4:20, 2:14] = masks[1, 6:22, 17:30] = True
    target = rng.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    faces = rng.integers(0, 256, (2, REFERENCE_SIZE, REFERENCE_SIZE, 3), dtype=np.uint8)
    return sample_of_two(key, target, masks, faces, caption=TEXTS[0], split=split)


def uno_weights(num_double=2, num_single=2, width=64, rank=4):
    """What UNO's training script saves, for FLUX of this size."""
    import torch

    random = torch.Generator().manual_seed(0)
    layers = [
        (f"double_blocks.{i}.processor.{name}", width, outputs * width)
        for i in range(num_double)
        for name, outputs in (("qkv_lora1", 3), ("proj_lora1", 1), ("qkv_lora2", 3), ("proj_lora2", 1))
    ]
    for i in range(num_single):
        layers.append((f"single_blocks.{i}.processor.qkv_lora", width, 3 * width))
        layers.append((f"single_blocks.{i}.processor.proj_lora", 5 * width, width))
    weights = {}
    for name, inputs, outputs in layers:
        weights[f"{name}.down.weight"] = torch.randn(rank, inputs, generator=random) * 0.1
        weights[f"{name}.up.weight"] = torch.randn(outputs, rank, generator=random) * 0.1
    return weights


def outputs(transformer):
    """What a transformer makes of fixed inputs."""
    import torch

    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, 16, 16, generator=random),
            encoder_hidden_states=torch.randn(1, 12, 24, generator=random),
            pooled_projections=torch.randn(1, 16, generator=random),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([1.0]),
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(12, 3),
            return_dict=False,
        )[0]
