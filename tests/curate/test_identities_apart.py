"""Nobody whom the zoo learned is in a clip, in the face pool or, drawn from it, in the benchmark; scores use others."""

import ast
from functools import cache

import numpy as np
import pytest
import yaml
from imports import ROOT, module_file, project_modules

from mcpipe.world.attributes.facial_hair import FACIAL_HAIR
from mcpipe.world.attributes.hair import HAIR_CUTS
from mcpipe.world.clips import KINDS, NAMESPACE, WorldParams, clip_specs
from mcpipe.world.identities import GEOMETRY_RANGES, sample_identity, world_rng
from stages.s00_world import FACES_NAMESPACE

NAMESPACES = {
    "zoo.build": {"zoo", "zoo things"},
    "zoo.scores": {"zoo-scores"},
    "mcpipe.world.clips": {"clips"},
    "mcpipe.world.preview": {"preview"},
    "mcpipe.world.discovery": {"trait ..."},
    "stages.s00_world": {"faces"},
}
"""Which parts of the project may draw from which parts of the world."""

MODULES = project_modules("mcpipe", "stages", "zoo")
SETTINGS = WorldParams(**yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["world"])


@cache
def tree_of(module):
    return ast.parse(module_file(module).read_text(encoding="utf-8"))


def constant(module, name):
    """The text that a module-level name stands for, wherever it was defined."""
    for node in tree_of(module).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return constant(
                node.module, next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            )
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [name]:
            return text_of(module, node.value)
    raise AssertionError(f"{module}: {name} is no constant")


def text_of(module, node):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return f"{node.values[0].value}..."
    assert isinstance(node, ast.Name), f"{module}:{node.lineno}: the namespace should be a constant"
    return constant(module, node.id)


def namespaces(module):
    """The namespaces of every use of `world_rng` in a module; each use has to say its own."""
    used, uses = set(), 0
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            assert not any(alias.name == "world_rng" and alias.asname for alias in node.names), (
                f"{module} renames world_rng"
            )
        uses += "world_rng" in (getattr(node, "id", None), getattr(node, "attr", None))
        if isinstance(node, ast.Call):
            called, arguments = ast.unparse(node.func).split(".")[-1], node.args
            if called == "partial" and ast.unparse(arguments[0]).split(".")[-1] == "world_rng":
                called, arguments = "world_rng", arguments[1:]
            if called == "world_rng":
                used.add(text_of(module, arguments[0]))
                uses -= 1
    assert uses == 0, f"{module} passes world_rng on without a namespace"
    return used


@pytest.mark.parametrize("module", MODULES)
def test_every_part_draws_people_from_its_own_namespace(module):
    allowed = next((names for part, names in NAMESPACES.items() if f"{module}.".startswith(f"{part}.")), set())
    assert namespaces(module) <= allowed


def test_every_namespace_is_in_use():
    """Otherwise the test above would look for what is no longer there."""
    used = set().union(*(namespaces(module) for module in MODULES))
    assert {"zoo", "clips", "faces", "preview", "trait ..."} <= used <= set().union(*NAMESPACES.values())


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("zoo.")])
def test_the_zoo_renders_no_clip_and_no_face_of_the_pipeline(module):
    names = {
        alias.name for node in ast.walk(tree_of(module)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not names & {"KINDS", "clip_identity", "write_clip", "write_portrait", "clip_specs"}


def cast_of_the_clips():
    """Everybody in the clips of the default parameters, as the clips' own code casts them."""
    small = SETTINGS.model_copy(update={"width": 64, "height": 64})
    people = {}
    for spec in clip_specs(small):
        rng = world_rng(NAMESPACE, small.seed, 1, list(KINDS).index(spec.kind), spec.number)
        script = KINDS[spec.kind](rng, spec.number, small)
        for time_s in (0.0, small.seconds) if spec.kind in ("cut", "identity_change") else (0.0,):
            cast = [person.identity for _, scene in script(time_s) for person in scene.people]
            people |= {identity.key: identity for identity in cast}
    return list(people.values())


@cache
def people_of_the_zoo(seed):
    """Two thousand people from streams as the zoo's builders number them."""
    streams = [(seed, 3, index) for index in range(600)]  # the recogniser's
    streams += [(seed, split, index) for split in (0, 1) for index in range(300)]  # the detectors'
    streams += [(part, index) for part in (100, 101) for index in range(300)]  # whole scenes
    streams += [(part,) for part in (200, 201)]
    people = []
    for stream in streams:
        rng = world_rng("zoo", *stream)
        people += [sample_identity(rng) for _ in range(1 if len(stream) > 1 else 200)]
    return people


def vectors(people):
    """Traits as numbers of about the same weight, (n, traits)."""
    low, high = np.array(list(GEOMETRY_RANGES.values())).T
    rows = []
    for person in people:
        shape = (np.array(list(person.geometry.values.values())) - low) / (high - low)
        colours = np.array([*person.hair_rgb, *person.eye_rgb]) / 255
        kinds = [person.hair_cut == cut for cut in HAIR_CUTS] + [person.facial_hair == kind for kind in FACIAL_HAIR]
        rows.append(np.concatenate([shape, colours, 0.5 * np.array(kinds), [person.skin, person.glasses is not None]]))
    return np.stack(rows)


def nearest(these, those):
    """Distance from each of these people to the most similar one of those, (n,)."""
    first, second = vectors(these), vectors(those)
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0).min(axis=1))


def test_people_of_clips_faces_scores_and_zoo_are_strangers():
    zoo = people_of_the_zoo(SETTINGS.seed)
    others = {
        "clips": cast_of_the_clips(),
        "faces": [sample_identity(world_rng(FACES_NAMESPACE, SETTINGS.seed, number)) for number in range(160)],
        "scores": [sample_identity(world_rng("zoo-scores", seed, 0, n)) for seed in range(3) for n in range(60)],
    }
    assert len(others["clips"]) > 80
    keys = {name: {person.key for person in people} for name, people in {"zoo": zoo, **others}.items()}
    assert len(set().union(*keys.values())) == sum(map(len, keys.values()))
    chance = np.median(nearest([sample_identity(world_rng("nobody", number)) for number in range(160)], zoo))
    for name, people in others.items():
        apart = nearest(people, zoo)
        assert apart.min() > 0.3 * chance, name
        assert 0.9 < np.median(apart) / chance < 1.1, name


def test_the_same_stream_would_be_noticed():
    zoo = people_of_the_zoo(SETTINGS.seed)
    assert nearest(zoo[:50], zoo).max() < 1e-6
