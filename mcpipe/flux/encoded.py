"""The frozen work of training on all samples, done once: latents, text embeddings, masks on the token grid."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.progress import track
from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.schemas.training import EmptyText, EncodedSample
from mcpipe.core.shards import StoredItem, StoredItems, whole_folder, write_shards
from mcpipe.core.texts import CutTexts, cut_facts, recorded_cuts
from mcpipe.execution.parallel import mapped, num_processes
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encode import EncodeParams, encoded_empty, encoded_sample


@dataclass(frozen=True)
class Encoded:
    """What a process has encoded, and the texts that an encoder cut on the way."""

    record: EncodedSample | EmptyText
    cut: CutTexts


@dataclass(frozen=True)
class Encoding:
    """The generator that encodes samples, and the settings."""

    generator: Path
    params: EncodeParams

    def load(self) -> Callable[[StoredItem | None], Encoded]:
        """Load the generator; returns the function that encodes a stored sample, or the empty text for ``None``.

        Raises:
            FileNotFoundError: the generator is missing.
            ValueError: it is damaged.
        """
        pipeline = load_generator(self.generator)

        def encode(item: StoredItem | None) -> Encoded:
            with recorded_cuts() as cut:
                record = encoded_empty(pipeline) if item is None else encoded(pipeline, item, self.params)
            return Encoded(record, cut)

        return encode


def write_encoded(samples: Path, generator: Path, encode: Path, params: EncodeParams) -> None:
    """Encode every sample, and the empty text beside them in ``empty``."""
    report = Report("encode", ("torch", "diffusers", "transformers"))
    items = [*StoredItems((samples, Sample))]
    cut: CutTexts = {}
    results = mapped(Encoding(generator, params), [None, *items], num_processes(generator, len(items) + 1))
    with whole_folder(encode) as folder:
        empty = next(results)
        write_shards([empty.record], folder / "empty", 1)
        records = counted(track(results, len(items), report.stage), report, cut)
        write_shards(records, folder, params.records_per_shard)
        report.facts = cut_facts(cut)
        report.write(folder)


def counted(results: Iterable[Encoded], report: Report, cut: CutTexts) -> Iterator[EncodedSample | EmptyText]:
    """The records, counted by the report; ``cut`` learns which texts were cut."""
    for result in results:
        for encoder, texts in result.cut.items():
            cut.setdefault(encoder, set()).update(texts)
        report.keep(result.record.key)
        yield result.record


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
