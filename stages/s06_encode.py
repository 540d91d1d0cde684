"""Stage 6: the frozen work of training, done once: latents, text embeddings, masks on the token grid."""

from pathlib import Path

from mcpipe.core.records import Record
from mcpipe.core.report import Report
from mcpipe.core.shards import Row, Rows, whole_folder, write_shards
from mcpipe.execution.engine import kept
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encode import EncodeParams, encoded_empty, encoded_sample


def run(samples: Path, generator: Path, encode: Path, params: EncodeParams) -> None:
    """Encode every sample, and the empty text beside them in ``empty``."""
    report = Report("encode", ("torch", "diffusers", "transformers"))
    rows = Rows((samples,))
    total = len(rows)
    pipeline = load_generator(generator)
    items = ((row.key, row) for row in rows)
    with whole_folder(encode) as folder:
        records = kept(items, total, lambda row: encoded(pipeline, row, params), report)
        write_shards(records, folder, params.records_per_shard)
        write_shards([encoded_empty(pipeline)], folder / "empty", 1)
        report.write(folder)


def encoded(pipeline: FluxPipeline, row: Row, params: EncodeParams) -> Record:
    """What training needs of the sample in a place.

    Raises:
        ValueError: the sample is damaged or does not fit the generator; the message names its file.
    """
    (sample,) = row.inputs()
    try:
        return encoded_sample(pipeline, sample, params)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{row.places[0][0]}: {error}") from error
