"""The parts of the tiny SDXL in the files of the published ones: a pipeline's folder, and an IP-Adapter Plus."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

IP_ADAPTER = "ip-adapter-plus.safetensors"
HEAD_WIDTH = 64
"""Width of a head of the resampler: a constant of the published format."""
INDEX = "model_index.json"
PLUS_NAMES = {".ln0.": ".0.norm1.", ".ln1.": ".0.norm2.", ".attn.": ".0.", ".ff.0.": ".1.0.",
              ".ff.1.net.0.proj.": ".1.1.", ".ff.1.net.2.": ".1.3.", ".to_out.0.": ".to_out."}  # fmt: skip
"""Names in diffusers and in the published files."""


def untrained(generator: Path, clip: Path, widths: list[int]) -> StableDiffusionXLPipeline:
    """A pipeline with a random UNet whose other parts are those of the zoo.

    The VAE and the first text encoder are the generator's; the second text encoder and the image encoder are the
    two halves of ``clip``.
    """
    vae = AutoencoderKL.from_pretrained(generator / "vae", torch_dtype=torch.float32)
    first = CLIPTextModel.from_pretrained(generator / "text_encoder", dtype=torch.float32)
    second = CLIPTextModelWithProjection.from_pretrained(clip, dtype=torch.float32)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(clip, dtype=torch.float32)
    pixels = image_encoder.config.image_size
    text_width = first.config.hidden_size + second.config.hidden_size
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=CLIPTokenizer.from_pretrained(generator / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(clip),
        unet=unet(vae, widths, text_width, second.config.projection_dim),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        image_encoder=image_encoder,
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
        ),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (vae, first, second, image_encoder):
        part.requires_grad_(False).eval()
    return pipeline


def unet(vae: AutoencoderKL, widths: list[int], text_width: int, pooled_width: int) -> UNet2DConditionModel:
    """SDXL's UNet with two levels: attention at half of the latents' size alone."""
    time_width = 8
    return UNet2DConditionModel(
        sample_size=vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        cross_attention_dim=text_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=6 * time_width + pooled_width,
    )


def random_adapter(
    network: UNet2DConditionModel, image_width: int, num_tokens: int, width: int
) -> dict[str, dict[str, Tensor]]:
    """An untrained IP-Adapter Plus by the names of the published files; keys and values begin as those of the text."""
    text_width = network.config.cross_attention_dim
    resampler = IPAdapterPlusImageProjection(
        image_width, text_width, width, dim_head=HEAD_WIDTH, heads=width // HEAD_WIDTH, num_queries=num_tokens
    )
    keys_and_values = {}
    for number, name in enumerate(network.attn_processors):
        if name.endswith("attn2.processor"):
            of_text = network.get_submodule(name.removesuffix(".processor"))
            keys_and_values[f"{number}.to_k_ip.weight"] = of_text.to_k.weight.detach().clone()
            keys_and_values[f"{number}.to_v_ip.weight"] = of_text.to_v.weight.detach().clone()
    return {"image_proj": published(resampler.state_dict()), "ip_adapter": keys_and_values}


def published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the resampler by the names of the published files, keys and values in one matrix."""
    named: dict[str, Tensor] = {}
    for name, weight in state.items():
        if name.endswith("attn.to_v.weight"):
            continue
        tensor = weight.detach()
        if name.endswith("attn.to_k.weight"):
            tensor = torch.cat([tensor, state[name.replace("to_k", "to_v")].detach()])
            name = name.replace("to_k", "to_kv")  # noqa: PLW2901  the joined matrix
        for ours, theirs in PLUS_NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        named[name] = tensor
    return named


def adapter_of(network: UNet2DConditionModel) -> dict[str, dict[str, Tensor]]:
    """The IP-Adapter that a UNet was loaded with, by the names of the published files."""
    resampler = network.encoder_hid_proj.image_projection_layers[0]
    keys_and_values = {}
    for number, name in enumerate(network.attn_processors):
        if name.endswith("attn2.processor"):
            processor = network.get_submodule(name)
            for part in ("to_k_ip", "to_v_ip"):
                keys_and_values[f"{number}.{part}.weight"] = getattr(processor, part)[0].weight.detach()
    return {"image_proj": published(resampler.state_dict()), "ip_adapter": keys_and_values}


def read_own_parts(network: UNet2DConditionModel, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Fill a UNet with the weights that `write_own_parts` wrote; returns the IP-Adapter by its published names."""
    network.load_state_dict(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    adapter: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, weight in load_file(folder / IP_ADAPTER).items():
        kind, _, rest = name.partition(".")
        adapter[kind][rest] = weight.float()
    return adapter


def write_own_parts(pipeline: StableDiffusionXLPipeline, folder: Path) -> None:
    """Write UNet, scheduler, IP-Adapter and the pipeline's index, float16; other parts lie elsewhere in the zoo."""
    adapter = adapter_of(pipeline.unet)
    flat = {f"{kind}.{name}": weight.half() for kind, named in adapter.items() for name, weight in named.items()}
    save_file(flat, folder / IP_ADAPTER)
    bare = bare_unet(pipeline.unet)
    bare.half().save_pretrained(folder / "unet")
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    parts = pipeline.components | {"unet": bare, "image_encoder": None, "feature_extractor": None}
    StableDiffusionXLPipeline(**parts, add_watermarker=False).save_config(folder)


def bare_unet(network: UNet2DConditionModel) -> UNet2DConditionModel:
    """A UNet without its IP-Adapter."""
    config = {name: value for name, value in network.config.items() if name != "encoder_hid_dim_type"}
    bare = UNet2DConditionModel.from_config(config)
    own = {name: weight for name, weight in network.state_dict().items() if name in bare.state_dict()}
    bare.load_state_dict(own)
    bare.register_to_config(_name_or_path="")
    return bare
