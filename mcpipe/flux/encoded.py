"""The frozen work of training on all samples, done once: latents, text embeddings, masks on the token grid."""

from pathlib import Path

from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.schemas.training import EncodedSample
from mcpipe.core.shards import StoredItem, StoredItems, whole_folder, write_shards
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.execution.engine import kept
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encode import EncodeParams, encoded_empty, encoded_sample


def write_encoded(samples: Path, generator: Path, encode: Path, params: EncodeParams) -> None:
    """Encode every sample, and the empty text beside them in ``empty``."""
    report = Report("encode", ("torch", "diffusers", "transformers"))
    stored = StoredItems((samples, Sample))
    total = len(stored)
    pipeline = load_generator(generator)
    items = ((item.key, item) for item in stored)
    with whole_folder(encode) as folder, recorded_cuts() as cut:
        records = kept(items, total, lambda item: encoded(pipeline, item, params), report)
        write_shards(records, folder, params.records_per_shard)
        write_shards([encoded_empty(pipeline)], folder / "empty", 1)
        report.facts = cut_facts(cut)
        report.write(folder)


def encoded(pipeline: FluxPipeline, item: StoredItem, params: EncodeParams) -> EncodedSample:
    """What training needs of a stored sample.

    Raises:
        ValueError: the sample is damaged or does not fit the generator; the message names its file.
    """
    sample = item.read(Sample)
    try:
        return encoded_sample(pipeline, sample, params)
    except ValueError as error:
        raise ValueError(f"{item.shard}: sample {sample.key}: {error}") from error
