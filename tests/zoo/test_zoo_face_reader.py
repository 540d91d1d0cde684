"""The reader of faces in latents: which regions it reads, and what its distance says."""

from types import SimpleNamespace

import pytest
import torch

from mcpipe.world.captions import LASTING, VOCABULARY
from zoo.build.crops import SQUARE
from zoo.build.face_reader import MARGIN, SIDE, FaceReader, FaceReaderParams, cut, faces_of, regions, train_reader
from zoo.build.training import FitParams

CHANNELS, ROWS = 6, 24


def scene(*faces, word=0, number=0.0):
    words = {name: values[word] for name, values in VOCABULARY.items()}
    return {
        "faces": [list(face) for face in faces],
        "attributes": [words for _ in faces],
        "traits_vectors": [[number] for _ in faces],
    }


def test_regions_are_boxes_with_a_margin_and_turn_with_a_mirrored_image():
    quarter = SQUARE / 4
    pictures = SimpleNamespace(scenes=[scene((0, quarter, quarter, 2 * quarter)), scene((0, 0, 1, 1), (2, 2, 3, 3))])
    boxes = regions(pictures)
    margin = (MARGIN - 1) / 2 / 4
    plain = torch.tensor([-margin, 0.25 - margin, 0.25 + margin, 0.5 + margin])
    torch.testing.assert_close(boxes[0, 0], plain)
    torch.testing.assert_close(boxes[2, 0], torch.stack([1 - plain[2], plain[1], 1 - plain[0], plain[3]]))
    assert faces_of(boxes[:2]).images.tolist() == [0, 1, 1]


def test_a_region_is_cut_out_of_its_own_image():
    latents = torch.arange(2.0).view(2, 1, 1, 1) + torch.linspace(0, 0.5, ROWS).expand(2, CHANNELS, ROWS, ROWS)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5]], [[0.5, 0.0, 1.0, 0.5]]])
    crops = cut(latents, faces_of(boxes))
    assert crops.shape == (2, CHANNELS, SIDE, SIDE)
    torch.testing.assert_close(crops[0], latents[0, :, :SIDE, :SIDE], atol=0.02, rtol=0)
    torch.testing.assert_close(crops[1], latents[1, :, :SIDE, SIDE:], atol=0.02, rtol=0)


def test_the_distance_tells_trained_traits_apart_and_teaches_only_what_was_drawn(tmp_path):
    """Two kinds of faces, dark and light: those of one kind come out nearer to each other than the two kinds."""
    torch.manual_seed(0)
    scenes = [scene((60, 60, 180, 180), word=kind, number=float(kind)) for kind in (0, 1) * 8]
    pictures = SimpleNamespace(scenes=scenes)
    kinds = torch.tensor([0.0, 1.0] * 16).view(-1, 1, 1, 1)
    latents = (2 * kinds - 1) * 0.5 + 0.5 * torch.randn(32, CHANNELS, ROWS, ROWS)
    fit = FitParams(
        seed=0, steps=60, batch=16, learning_rate=0.003, warmup_steps=5, weight_decay=0.0, ema_decay=0.5
    )  # fmt: skip
    boxes = regions(pictures)
    params = FaceReaderParams(width=8, fit=fit)
    reader = train_reader(latents, boxes, pictures, params, tmp_path / "reader.progress")
    crops = cut(latents, faces_of(boxes))
    summary = reader.features(crops)[-1]
    guesses = torch.stack([reader.words[name](summary).argmax(dim=1) for name in LASTING])
    assert (guesses == kinds.flatten().long()).float().mean() > 0.95
    drawn = crops[:8].clone().requires_grad_()
    same, other = reader.distance(drawn, crops[8:16]), reader.distance(drawn, crops[9:17])
    assert same.shape == (8,)
    assert same.max() < other.min()
    assert reader.distance(drawn, crops[:8]).detach() == pytest.approx([0.0] * 8, abs=1e-6)
    other.sum().backward()
    assert drawn.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in reader.parameters())


def test_a_reader_has_finite_features_for_faces_outside_the_image():
    boxes = torch.tensor([[[1.2, 0.0, 1.4, 0.2]]])
    crops = cut(torch.randn(1, CHANNELS, ROWS, ROWS), faces_of(boxes))
    features = FaceReader(CHANNELS, 8, 1).features(crops)
    assert all(feature.isfinite().all() for feature in features)
