"""The generator of the tiny zoo: a `FluxPipeline` directory, text encoders trained together with the transformer.

Flow matching on the autoencoder's latents: x_t = (1 - t) x_0 + t n, the network learns n - x_0. As in FLUX.1-dev the
guidance scale is an input: at 1 the network learns the data itself, at g it learns v_0 + g (v_c - v_0), what
classifier-free guidance would make of its own predictions with and without text (guidance distillation, taught here in
the same training once the plain predictions mean something). "Without" also means without references: a share of the
batches shows the faces of the people as further tokens of the image stream, in random order, as MultiCrafter's
adapters do (`mcpipe.flux.network`), so that the generator draws people after words or after references. While it
learns, heads read off tokens in the middle of the network what their patches show: which words or which reference
belong to which place is learned from that sooner than from colours. Faces of the image that a prediction leads to are
also compared with the true ones in the features of a reader of latents (`zoo.build.face_reader`). A share of the
batches shows things instead (`zoo.build.generator_things`), so that one generator serves people and objects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from pydantic import Field
from torch import Tensor, nn
from transformers import CLIPTokenizer, T5TokenizerFast

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.flux.tokens import Layout
from zoo.build.cards import Card, Measured, write_card
from zoo.build.face_reader import FaceReaderParams, train_reader
from zoo.build.generator_data import TOKEN_PX, Batch, Examples
from zoo.build.generator_flow import Network, Weighing, flow_loss, held_out_loss
from zoo.build.generator_text import CLIP_WIDTH, T5_WIDTH, Text, read_text
from zoo.build.generator_things import ThingExamples
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.plain_attention import use_plain_attention
from zoo.build.regions import PatchHeads, TraitHead
from zoo.build.training import FitParams, Loss, fit, settle
from zoo.build.vae import LATENT_CHANNELS, psnr, reference_pictures

HEADS, HEAD_WIDTH = 4, 32
ROPE_AXES = (8, 12, 12)
TEXT_DROPOUT = 0.1
PACK = 2
"""Latents per side of a token."""


class ReferencesParams(Params):
    """Images of the people as further inputs."""

    size: int = Field(gt=0)
    """Pixels of a reference's side."""
    share: float = Field(ge=0, le=1)
    """Share of batches with references; in the others there are only words."""
    scene_share: float = Field(ge=0, le=1)
    """Share of captions in the form "scene", without the people, where there are references."""
    scene_share_without: float = Field(ge=0, le=1)
    """The same where there are none."""


class GeneratorParams(Params):
    """Size and training of the generator."""

    fit: FitParams
    start: str | None = Field(default=None, min_length=1)
    """Folder of a transformer to go on from; ``None`` begins with random weights."""
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    double_layers: int = Field(ge=1)
    """Double-stream blocks."""
    single_layers: int = Field(ge=1)
    """Single-stream blocks."""
    guidance_from: float = Field(ge=0, le=1)
    """Share of the steps after which guidance is taught."""
    guidance_share: float = Field(ge=0, le=1)
    """Share of a batch that is taught guidance from then on."""
    references: "ReferencesParams"
    """Training on references."""
    portrait_share: float = Field(ge=0, le=1)
    """Share of batches that show one face close by instead of a scene."""
    thing_share: float = Field(ge=0, le=1)
    """Share of the batches of scenes that show things instead of people."""
    patch_weight: float = Field(ge=0)
    """Weight of the patches' classification (`zoo.build.regions`), against the squared error of velocities."""
    trait_weight: float = Field(ge=0)
    """Weight of the squared error of lasting traits read off head patches."""
    head_weight: float = Field(ge=1)
    """Weight of a token that shows a head in the squared error of velocities; that of any other is 1."""
    reader: FaceReaderParams
    """The reader whose features compare drawn faces with true ones."""
    face_weight: float = Field(ge=0)
    """Weight of the distance of drawn faces from true ones in the reader's features."""
    time_shift: float = Field(gt=0)
    """Shift s of the noise levels in training and sampling, t' = s t / (1 + (s - 1) t)."""


def build(pictures: Path, things: Path, words: Path, vae: Path, out: Path, params: GeneratorParams) -> None:
    """Train on ``pictures`` and ``things`` with the text encoders of ``words``; write the pipeline.

    Latents are those of ``vae``.
    """
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    autoencoder = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).eval()
    (text, tokenizers), transformer = read_text(words), make_transformer(params)
    use_plain_attention(transformer)
    patches = PatchHeads(transformer.inner_dim)
    traits = TraitHead(transformer.inner_dim, len(train.scenes[0]["traits_vectors"][0]))
    sides = params.size // TOKEN_PX, params.references.size // TOKEN_PX
    network = Network(transformer, Layout((sides[0], sides[0]), (sides[1], sides[1])))
    examples = Examples(train, autoencoder, tokenizers, params.size, params.references.size)
    objects = ThingExamples(things / "train", autoencoder, tokenizers, params.size, params.references.size)
    reader = train_reader(*examples.faces(), train, params.reader, out.with_suffix(".reader"))
    weighing = Weighing(reader, params.head_weight, params.time_shift)

    def loss_of(step: int, rng: np.random.Generator) -> Loss:
        taught = step >= params.guidance_from * params.fit.steps
        share = params.guidance_share if taught else 0.0
        batch = draw(examples, objects, rng, params)
        clip_ids, t5_ids = examples.without_some(batch, TEXT_DROPOUT, rng)
        with watched(transformer) as seen:
            loss = flow_loss(text, network, batch, (clip_ids, t5_ids, *examples.empty), share, weighing)
        tokens = seen[-1][:, : batch.latents.shape[1]].float()
        patch_loss, trait_loss = patches(tokens, batch.regions).loss(), traits(tokens, batch.traits)
        of_heads = {
            "sightings": params.patch_weight * patch_loss["sightings"],
            "traits": params.trait_weight * trait_loss,
            "faces": params.face_weight * loss["_faces"],
        }
        return Loss(loss | patch_loss | of_heads)

    curves = fit([transformer, text, patches, traits], loss_of, params.fit, out.with_suffix(".progress"))
    pipeline = make_pipeline(autoencoder, text, tokenizers, transformer, params.time_shift)
    metrics = vae_metrics(autoencoder, test, params)
    metrics["flow_loss"] = held_out_loss(text, network, examples.of(test), params.fit.seed)
    with whole_folder(out) as folder:
        for part in (pipeline.vae, pipeline.transformer):
            part.register_to_config(_name_or_path="")  # diffusers would store the path that it was loaded from
        pipeline.to(torch.float16).save_pretrained(folder)
        write_card(folder, CARD, Measured("generator", metrics, curves, params))


def make_transformer(params: GeneratorParams) -> FluxTransformer2DModel:
    """The transformer of ``params.start``, or an untrained one whose output begins at zero, as usual."""
    if params.start is not None:
        return FluxTransformer2DModel.from_pretrained(params.start, torch_dtype=torch.float32)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS * PACK**2,
        num_layers=params.double_layers,
        num_single_layers=params.single_layers,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=ROPE_AXES,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


@contextmanager
def watched(transformer: FluxTransformer2DModel) -> Iterator[list[Tensor]]:
    """The image's tokens (B, tokens, width) in the middle of the network, of every pass through it in the block."""
    seen: list[Tensor] = []
    middle = transformer.single_transformer_blocks[len(transformer.single_transformer_blocks) // 2 - 1]
    handle = middle.register_forward_hook(lambda _, __, output: seen.append(output[1]))
    try:
        yield seen
    finally:
        handle.remove()


def draw(examples: Examples, things: ThingExamples, rng: np.random.Generator, params: GeneratorParams) -> Batch:
    """A batch of one kind: single faces, or scenes of people or of things, with references or without."""
    kind, count, references = rng.random(), params.fit.batch, params.references
    if kind < params.portrait_share:
        return examples.portraits(rng, count)
    referenced = kind < params.portrait_share + references.share
    if rng.random() < params.thing_share:
        shares = references.scene_share, references.scene_share_without
        return things.batch(rng, examples.portraits(rng, count), shares, referenced=referenced)
    if referenced:
        return examples.referenced(rng, count, references.scene_share)
    return examples.scenes(rng, count, references.scene_share_without)


def vae_metrics(vae: AutoencoderKL, test: Pictures, params: GeneratorParams) -> dict[str, float]:
    """Reconstruction of unseen squares and references, in dB."""
    references = reference_pictures(test, params.references.size)
    return {"psnr_db": psnr(vae, test.small(params.size)), "face_psnr_db": psnr(vae, references)}


def make_pipeline(
    vae: AutoencoderKL,
    text: Text,
    tokenizers: tuple[CLIPTokenizer, T5TokenizerFast],
    transformer: FluxTransformer2DModel,
    time_shift: float,
) -> FluxPipeline:
    """The parts as one pipeline; a static shift, because all images have one size."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=time_shift, use_dynamic_shifting=False)
    pipeline = FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=text.clip,
        tokenizer=tokenizers[0],
        text_encoder_2=text.t5,
        tokenizer_2=tokenizers[1],
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


CARD = Card(
    title="Generator of the tiny zoo",
    what=(
        "A `FluxPipeline` directory, float16: `FluxTransformer2DModel` with guidance embedding, `AutoencoderKL` with "
        f"{LATENT_CHANNELS} channels at a quarter of the size, CLIP and T5 text encoders with tokenizers of their own. "
        "It draws people after words or after up to two references, which are further tokens of the image stream. "
        "Guidance 1 gives the network's plain predictions, larger values what classifier-free guidance makes of them, "
        "against neither text nor references. Beside the flow's squared error its training weighs how drawn faces "
        "differ from the true ones in the features of a small network that reads lasting traits off latents."
    ),
    data=(
        "Squares of 96 x 96 pixels of the puppet world with one to three people, as they are and mirrored, with their "
        "captions, close-ups of single faces, and squares of one to three things. Identities come from the namespace "
        "`zoo`, which no clip, no face pool and no benchmark uses: the generator knows the world and nobody in it. "
        "Things come from `zoo things`."
    ),
    limits=(
        "Knows the grammars of mcpipe/world/captions.py and mcpipe/world/thing_captions.py, and pictures of 96 x 96 "
        "pixels."
    ),
    bars={
        "psnr_db": "of the autoencoder's reconstructions of whole squares",
        "face_psnr_db": "of reference pictures of 48 x 48 pixels",
        "flow_loss": "squared error of the velocity at evenly spread noise levels, guidance 1",
    },
)
