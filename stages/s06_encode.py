"""Stage 6: the frozen work of training, done once: latents, text embeddings, masks on the token grid."""

from pathlib import Path

from mcpipe.engine import kept
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encode import EncodeParams, encoded_empty, encoded_sample
from mcpipe.report import Report
from mcpipe.shards import read_shards, whole_folder, write_shards


def run(samples: Path, generator: Path, encode: Path, params: EncodeParams) -> None:
    """Encode every sample, and the empty text beside them in ``empty``."""
    report = Report("encode", ("torch", "diffusers", "transformers"))
    total = sum(1 for _ in read_shards(samples))
    pipeline = load_generator(generator)
    items = ((sample.key, sample) for sample in read_shards(samples))
    with whole_folder(encode) as folder:
        encoded = kept(items, total, lambda sample: encoded_sample(pipeline, sample, params), report)
        write_shards(encoded, folder, params.records_per_shard)
        write_shards([encoded_empty(pipeline)], folder / "empty", 1)
        report.write(folder)
