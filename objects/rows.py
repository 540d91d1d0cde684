"""The embedded source of the branch, rendered: rows of objects in the format of MUSAR-Gen."""

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.world.thing_captions import name_things
from mcpipe.world.things import PATTERNS, Thing, reference, render_things, sample_thing_scene, sample_things
from mcpipe.world.traits import world_rng

NAMESPACE = "object rows"
FAULTS = ("no_phrase", "equal_phrases", "damaged_picture", "absent_object", "wrong_word")
"""What is wrong with each kind of unusable row; a wrong word is one that a grounder may well pass over."""
MOST_REFERENCES = 3
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image as published data sets store it."""
SCHEMA = pa.schema(
    [(f"cond_img_{number}", IMAGE) for number in range(MOST_REFERENCES)]
    + [(f"cond_prompt_{number}", pa.string()) for number in range(MOST_REFERENCES)]
    + [("tgt_img", IMAGE), ("prompt", pa.string())]
)

Row = dict[str, object]


class RowsParams(Params):
    """The rendered rows."""

    seed: int = Field(ge=0)
    num_rows: int = Field(ge=1)
    """Usable rows."""
    bad_rows_per_kind: int = Field(ge=0)
    """Rows of each kind that must be refused (`FAULTS`)."""
    three_share: float = Field(ge=0, le=1)
    """Share of the rows with three objects; the others have two."""
    plain_share: float = Field(ge=0, le=1)
    """Share of the references on white; the others show their object in a place of its own."""
    target_size: int = Field(ge=32)
    """Side of a target in pixels."""
    reference_size: int = Field(ge=32)
    """Side of a reference in pixels."""
    rows_per_file: int = Field(ge=1)


def run(rows: Path, params: RowsParams) -> None:
    """Write Parquet files of rows, each row with objects of its own; unusable rows stand at the end."""
    faults = [""] * params.num_rows + [fault for fault in FAULTS for _ in range(params.bad_rows_per_kind)]
    drawn = track(map(row_of, range(len(faults)), faults, [params] * len(faults)), len(faults), "rows")
    with whole_folder(rows) as folder:
        for number in range(0, len(faults), params.rows_per_file):
            table = pa.Table.from_pylist(list(islice(drawn, params.rows_per_file)), SCHEMA)
            pq.write_table(table, folder / f"rows-{number // params.rows_per_file:05d}.parquet")


def row_of(number: int, fault: str, params: RowsParams) -> Row:
    """A row of two or three new objects, with a fault if one is named."""
    rng = world_rng(NAMESPACE, params.seed, number)
    things = sample_things(rng, 3 if rng.random() < params.three_share else 2)
    scene = sample_thing_scene(rng, things)
    row: Row = {"tgt_img": encoded(render_things(scene, params.target_size, params.target_size).rgb)}
    row["prompt"] = name_things(scene, rng)
    given = sample_things(rng, 1) + things[1:] if fault == "absent_object" else things
    while given[0].phrase == things[0].phrase and fault == "absent_object":
        given[0] = sample_things(rng, 1)[0]
    for place, thing in enumerate(given):
        plain = bool(rng.random() < params.plain_share)
        row[f"cond_img_{place}"] = encoded(reference(thing, rng, params.reference_size, plain=plain).rgb)
        row[f"cond_prompt_{place}"] = thing.phrase
    if fault == "wrong_word":
        row["cond_prompt_1"] = misnamed(things[1], rng)
    return row | dict(changes(row, fault))


def misnamed(thing: Thing, rng: np.random.Generator) -> str:
    """The phrase of a thing with another pattern than it has."""
    others = [pattern for pattern in PATTERNS if pattern not in ("plain", thing.design.pattern)]
    return replace(thing, design=replace(thing.design, pattern=str(rng.choice(others)))).phrase


def changes(row: Row, fault: str) -> Iterator[tuple[str, object]]:
    """The cells that a fault changes."""
    if fault == "no_phrase":
        yield "cond_prompt_1", ""
    elif fault == "equal_phrases":
        yield "cond_prompt_1", row["cond_prompt_0"]
    elif fault == "damaged_picture":
        image = row["tgt_img"]
        assert isinstance(image, dict), "an image with its bytes"
        yield "tgt_img", {**image, "bytes": image["bytes"][: len(image["bytes"]) // 2]}


def encoded(picture: np.ndarray) -> dict[str, object]:
    """An image as a cell."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}
