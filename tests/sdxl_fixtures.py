"""A random tiny SDXL with an IP-Adapter Plus, in the files of the published ones."""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from flux_fixtures import clip_tokenizer
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # isort: skip

IMAGE_SIZE = 32
"""Pixels; with an f2 VAE 16 x 16 latents, and 8 x 8 tokens, the grid of the UNet's finest attention."""
TEXT_WIDTH, IMAGE_WIDTH, NUM_QUERIES = 32, 32, 4


def random_sdxl():
    """SDXL with attention at a half and a quarter of the latents' grid, as the real one has it."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH // 2, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=TEXT_WIDTH, bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1, pad_token_id=len(tokenizer) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 32), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4, 8),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8, norm_num_groups=4,
        transformer_layers_per_block=(1, 1, 1), projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
        cross_attention_dim=TEXT_WIDTH,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, norm_num_groups=4, sample_size=32,
        layers_per_block=1, scaling_factor=0.13,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet, scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def random_image_encoder():
    torch.manual_seed(1)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH, projection_dim=IMAGE_WIDTH, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, image_size=30, patch_size=15,
    ))  # fmt: skip


def keys_and_values(unet):
    """The IP-Adapter's projections: numbered as the UNet's attention processors, of which every second one has them."""
    weights = {}
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = torch.randn(width, TEXT_WIDTH) * 0.3
    return weights


def plus_projection(num_layers=4):
    """Weights of the Perceiver that makes tokens of an image's features, by the names of the published files."""
    width, inner = 64, 64
    shapes = {
        "latents": (1, NUM_QUERIES, width), "proj_in.weight": (width, IMAGE_WIDTH), "proj_in.bias": (width,),
        "proj_out.weight": (TEXT_WIDTH, width), "proj_out.bias": (TEXT_WIDTH,),
        "norm_out.weight": (TEXT_WIDTH,), "norm_out.bias": (TEXT_WIDTH,),
    }  # fmt: skip
    for i in range(num_layers):
        shapes |= {f"layers.{i}.0.norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
        shapes |= {
            f"layers.{i}.0.to_q.weight": (inner, width), f"layers.{i}.0.to_kv.weight": (2 * inner, width),
            f"layers.{i}.0.to_out.weight": (width, inner), f"layers.{i}.1.0.weight": (width,),
            f"layers.{i}.1.0.bias": (width,), f"layers.{i}.1.1.weight": (4 * width, width),
            f"layers.{i}.1.3.weight": (width, 4 * width),
        }  # fmt: skip
    return {f"image_proj.{name}": torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def plain_projection():
    """The same for the plain IP-Adapter, which reads one embedding."""
    size = NUM_QUERIES * TEXT_WIDTH
    shapes = {"proj.weight": (size, IMAGE_WIDTH), "proj.bias": (size,), "norm.weight": (TEXT_WIDTH,),
              "norm.bias": (TEXT_WIDTH,)}  # fmt: skip
    return {f"image_proj.{name}": torch.randn(shape) for name, shape in shapes.items()}


def saved_sdxl(folder):
    """A pipeline's folder, and an IP-Adapter's repository; returns folder, Plus weights, plain weights, encoder."""
    pipeline = random_sdxl()
    pipeline.save_pretrained(folder / "sdxl")
    root = folder / "IP-Adapter"
    (root / "sdxl_models").mkdir(parents=True)
    random_image_encoder().save_pretrained(root / "models" / "image_encoder")
    torch.manual_seed(2)
    shared = keys_and_values(pipeline.unet)
    plus, plain = (root / "sdxl_models" / name for name in ("ip-adapter-plus_sdxl_vit-h.safetensors",
                                                            "ip-adapter_sdxl_vit-h.safetensors"))  # fmt: skip
    save_file(shared | plus_projection(), plus)
    save_file(shared | plain_projection(), plain)
    return folder / "sdxl", plus, plain, root / "models" / "image_encoder"
