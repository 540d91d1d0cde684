"""Generation from Python, with the interface of a diffusers pipeline.

    pipeline = MultiCrafterPipeline.from_pretrained("zoo/generator", adapter="data/models/train_rl")
    out = pipeline("a woman and a man in a park", [face_a, face_b], generator=torch.Generator().manual_seed(7))
    out.images[0].save("park.png")

It is a stock `FluxPipeline` in every other respect: offloading, saving and devices work alike. Its images equal
those of `mcpipe.flux.sampler.generate`, which the benchmark uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mcpipe.core.shards import whole_folder
from mcpipe.core.sizes import Size
from mcpipe.flux.adapters import AdapterSpec, load_adapter, save_adapter
from mcpipe.flux.attention import recorded_attention
from mcpipe.flux.backbone import FluxPipeline, execution_device, load_generator
from mcpipe.flux.bare import bare_transformer, check_separable
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.low_memory import Memory, check_memory, is_offloaded_in_parts, is_plain, reduce_memory
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.quantization import Quantization
from mcpipe.flux.sampler import SampleParams, encode_conditions, latents
from mcpipe.flux.tokens import layout
from mcpipe.models.image_arrays import ACCEPTED, ImageInput
from mcpipe.models.images import read_image

ADAPTER = "adapter"
"""Folder of the adapter in a folder that `MultiCrafterPipeline.save_pretrained` wrote."""

IMAGE_DIMENSIONS = 3
"""Height, width and channels."""

OutputType = Literal["pil", "np", "latent"]
References = Sequence[ImageInput] | np.ndarray | Tensor
"""Square images of one person each: a sequence, or an array or a tensor of four dimensions."""


@dataclass(frozen=True)
class MultiCrafterOutput:
    """Output of one call."""

    images: list[Image.Image] | Float[np.ndarray, "batch H W 3"] | Float[Tensor, "batch channels h w"]
    """Images (`pil`), values in [0, 1] (`np`) or latents ready for the VAE (`latent`)."""
    attention: Float[Tensor, "batch subjects rows columns"] | None
    """Attention map of each reference over the image, averaged over all steps, with sum 1; only on request."""


class MultiCrafterPipeline(FluxPipeline):
    """FLUX with an adapter of this project and any number of references per image."""

    spec: AdapterSpec
    """Specification of the adapter, and its training sizes."""

    @classmethod
    def from_pretrained(
        cls,
        generator: str | Path,
        *,
        adapter: str | Path | None = None,
        memory: Memory = "high",
        quantize: Quantization | None = None,
    ) -> "MultiCrafterPipeline":
        """The FLUX pipeline of a folder with the adapter of another one, frozen, on the best device there is.

        Without ``adapter``, the one that `save_pretrained` wrote into the folder. ``memory`` says how much of the
        device's memory it may take (see `mcpipe.flux.low_memory`), ``quantize`` how the frozen weights of transformer
        and T5 are stored (see `mcpipe.flux.quantization`); by default as the mode says.

        Raises:
            FileNotFoundError: a folder, or a file of the adapter, is missing.
            ValueError: a file is damaged, the adapter belongs to another generator, ``memory`` or ``quantize`` is
                unknown, they exclude each other, or bitsandbytes is needed and not installed.
        """
        mode, form = check_memory(memory, quantize)
        if adapter is None and Path(generator).is_dir() and not (Path(generator) / ADAPTER).is_dir():
            raise FileNotFoundError(f"{generator} holds no folder {ADAPTER}; give adapter=, the folder of an adapter")
        pipeline = cls(**load_generator(Path(generator), on_device=is_plain(mode, form)).components)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.spec = load_adapter(pipeline, Path(generator) / ADAPTER if adapter is None else Path(adapter))
        pipeline.transformer.requires_grad_(False)
        reduce_memory(pipeline, mode, form)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # noqa: ANN401  as diffusers does
        """Write the generator as stock diffusers writes it, and the adapter beside it in ``adapter``.

        `from_pretrained` of the folder gives the same images, bit for bit, in the same precision and on the same
        device; on a CPU, a generator that came in files of another layout than diffusers' default differs in the last
        bits of its latents. Stock diffusers loads the generator from the folder and, with ``load_lora_weights`` of its
        folder ``adapter``, the plain LoRA; it knows nothing of experts and references. The folder appears whole or not
        at all.

        Raises:
            FileExistsError: the folder holds something.
            ValueError: an option of diffusers is given; or the adapter cannot be written apart from the generator,
                because weights are offloaded, merged, or of several adapters.
            OSError: the folder cannot be written.
        """
        folder = Path(save_directory)
        if options:
            raise ValueError(f"save_pretrained takes no {min(options)}: files of another layout may draw otherwise")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is there and not empty; choose another folder")
        if "spec" not in vars(self):
            raise ValueError("the pipeline has no adapter; load it with MultiCrafterPipeline.from_pretrained")
        check_separable(self)
        parts: dict[str, Any] = {**self.components, "transformer": bare_transformer(self.transformer)}
        with whole_folder(folder.absolute()) as unfinished:
            FluxPipeline(**parts).save_pretrained(unfinished)
            (unfinished / ADAPTER).mkdir()
            save_adapter(self.transformer, self.spec, unfinished / ADAPTER)

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  as diffusers does
        self,
        prompt: str | Sequence[str],
        references: References | Sequence[References],
        *,
        num_inference_steps: int = 20,
        guidance_scale: float = 4.0,
        shift: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: OutputType = "pil",
        output_attention: bool = False,
    ) -> MultiCrafterOutput:
        """Draw one image per prompt, of the people in its references.

        One prompt takes a sequence of images, several prompts take one such sequence each; these may differ in
        length. A reference is a square around a face, as training saw it; other sizes are resized. It is a path, a PIL
        image, a numpy array or a tensor, as `mcpipe.models.images.read_image` reads them. ``shift`` is that of the
        noise schedule; without it, the one that the adapter was trained at. Without ``height`` and ``width``, in
        pixels, images are squares of the adapter's training size.

        Raises:
            FileNotFoundError: the path of a reference leads to no file.
            ValueError: the shift is unknown; height and width are incomplete or no multiples of a token; prompts,
                references and generators differ in number; a prompt has no reference; a reference cannot be read or is
                not square; or maps are requested for unequal numbers of references or weights offloaded one by one.
        """
        if (shift := self.spec.shift if shift is None else shift) is None:
            raise ValueError("the adapter does not record the shift of its training (adapter.json); give shift=...")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        single = isinstance(prompt, str)
        people = _per_prompt(prompts, [references] if single else _members(references, IMAGE_DIMENSIONS + 2))
        names = ["references"] if single else [f"references[{i}]" for i in range(len(prompts))]
        pictures = [self._prepared(each, name) for each, name in zip(people, names, strict=True)]
        if output_attention and is_offloaded_in_parts(self.transformer):
            raise ValueError('attention maps need the weights of a whole block; load the pipeline with memory="medium"')
        if output_attention and len({len(each) for each in pictures}) > 1:
            raise ValueError("attention maps need as many references for every prompt; draw the pictures one by one")
        grids = layout(self, _image_size(height, width, self.spec), self.spec.reference_size)
        network = ReferenceFlux(self.transformer, grids, guidance_scale)
        conditions = encode_conditions(self, prompts, pictures)
        noise = _noise(network, len(prompts), generator)
        params = SampleParams(num_steps=num_inference_steps, guidance=float(guidance_scale), shift=float(shift))
        if not output_attention:
            return MultiCrafterOutput(_finished(self, latents(network, conditions, noise, params), output_type), None)
        with recorded_attention(network) as maps:
            drawn = latents(network, conditions, noise, params)
        mean = torch.stack(maps).mean(0).unflatten(-1, grids.image)
        return MultiCrafterOutput(_finished(self, drawn, output_type), mean)

    def _prepared(self, references: Sequence[ImageInput], name: str) -> UInt8[np.ndarray, "N R R 3"]:
        """References at the adapter's training size; ``name`` is the caller's name of them."""
        size = self.spec.reference_size
        return np.stack([_square(image, f"{name}[{number}]", size) for number, image in enumerate(references)])


def _image_size(height: int | None, width: int | None, spec: AdapterSpec) -> int | Size:
    """Width and height of the images, or the side of the adapter's squares.

    Raises:
        ValueError: only one of them is given.
    """
    if height is None and width is None:
        return spec.image_size
    if height is None or width is None:
        raise ValueError(f"give height and width, or neither: height is {height}, width is {width}")
    return width, height


def _per_prompt(prompts: list[str], sets: list[object]) -> list[list[ImageInput]]:
    """The references of every prompt.

    Raises:
        ValueError: there are more or fewer sets than prompts, or a set is empty or no list of images.
    """
    if len(prompts) != len(sets):
        raise ValueError(
            f"{len(prompts)} prompts, but {len(sets)} sets of references; give a list of images per prompt"
        )
    people = []
    for prompt, references in zip(prompts, sets, strict=True):
        images = _members(references, IMAGE_DIMENSIONS + 1)
        if not images:
            raise ValueError(
                f"no references for the prompt {prompt!r}; give a list of images, one per person, each {ACCEPTED}"
            )
        people.append(images)
    return people


def _members(value: object, dimensions: int) -> list:
    """The items of a list, or of an array or tensor with this number of dimensions; otherwise an empty list."""
    if isinstance(value, list | tuple):
        return list(value)
    return list(value) if isinstance(value, np.ndarray | Tensor) and value.ndim == dimensions else []


def _square(source: ImageInput, name: str, size: int) -> UInt8[np.ndarray, "R R 3"]:
    picture = read_image(source, name)
    height, width = picture.shape[:2]
    if width != height:
        raise ValueError(
            f"{name} measures {width} x {height} px; it should be a square around a face, as `mcpipe generate` cuts it"
        )
    if width == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def _noise(
    network: ReferenceFlux, num: int, generator: torch.Generator | Sequence[torch.Generator] | None
) -> Float[Tensor, "batch tokens packed"]:
    """Pure noise; one generator serves all images in turn, and a fresh one with a seed gives the sampler's noise."""
    generators = [generator] * num if generator is None or isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != num:
        raise ValueError(f"{num} prompts, but {len(generators)} generators")
    shape, device = network.state_shape, execution_device(network.transformer)
    drawn = [torch.randn(shape, generator=each, device=each.device if each else None).to(device) for each in generators]
    return torch.stack(drawn)


def _finished(
    pipeline: FluxPipeline, drawn: Float[Tensor, "batch channels h w"], output_type: OutputType
) -> list[Image.Image] | np.ndarray | Tensor:
    if output_type == "latent":
        return drawn
    pictures = decode_latents(pipeline, drawn)
    if output_type == "np":
        return pictures.astype(np.float32) / 255
    if output_type == "pil":
        return [Image.fromarray(picture) for picture in pictures]
    raise ValueError(f"output_type is one of pil, np and latent, not {output_type!r}")
