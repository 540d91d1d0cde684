"""Networks of the face pack, shaped so that InsightFace's router takes them for SCRFD and ArcFace.

The router goes by inputs and outputs: nine outputs, scores then boxes then landmarks at three strides, make an SCRFD
detector with two anchors a cell; a 112 x 112 input with one 512-vector makes an ArcFace recogniser.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
ANCHORS = 2
"""Anchors a cell; both learn the same, the format asks for them."""

PRIOR = -4.0
"""Logit of a face at an untrained cell: faces are rare."""

EMBEDDING = 512
LEAST_HALVED = 64
"""Numbers from which a tensor of a file is stored in half precision."""


class FaceDetector(nn.Module):
    """Scores, box edges and landmarks per anchor, in rows of (y, x, anchor); distances in strides."""

    def __init__(self, width: int) -> None:
        """A network of ``width`` channels at stride 4, and more above."""
        super().__init__()
        half, wide = width // 2, 2 * width
        self.stem = nn.Sequential(_unit(3, half, 2), _unit(half, width, 2), _unit(width, width))
        self.stages = nn.ModuleList(
            nn.Sequential(_unit(below, above, 2), _unit(above, above))
            for below, above in ((width, wide), (wide, 3 * width), (3 * width, 4 * width))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, wide, 1) for channels in (wide, 3 * width, 4 * width))
        self.heads = nn.ModuleList(nn.Sequential(_unit(wide, wide), _unit(wide, wide)) for _ in STRIDES)
        self.outputs = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(wide, numbers * ANCHORS, 3, padding=1) for _ in STRIDES) for numbers in (1, 4, 10)
        )
        for name, bias in self.outputs[0].named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(bias, PRIOR)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, A), edges (B, A, 4) and landmarks (B, A, 10) of all anchors, finest stride first."""
        rows = self._rows(pictures)
        scores, edges, landmarks = (torch.cat([level[kind] for level in rows], dim=1) for kind in range(3))
        return scores[..., 0], edges, landmarks

    def scrfd(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """The nine outputs of SCRFD for one image: probabilities, edges and landmarks, each at three strides."""
        rows = self._rows(pictures)
        probabilities = [level[0].sigmoid() for level in rows]
        return tuple(part[0] for kind in (probabilities, [r[1] for r in rows], [r[2] for r in rows]) for part in kind)

    def _rows(self, pictures: Tensor) -> list[list[Tensor]]:
        """Per stride, the three kinds of output as (B, A, numbers)."""
        features, maps = self.stem(pictures), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        fused = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for finer in (1, 0):
            fused[finer] = fused[finer] + functional.interpolate(fused[finer + 1], scale_factor=2.0, mode="nearest")
        towers = [head(level) for head, level in zip(self.heads, fused, strict=True)]
        return [
            [
                output(tower).permute(0, 2, 3, 1).reshape(len(pictures), -1, numbers)
                for output, numbers in zip(kinds, (1, 4, 10), strict=True)
            ]
            for tower, kinds in zip(towers, zip(*self.outputs, strict=True), strict=True)
        ]


class ScrfdExport(nn.Module):
    """A detector as its file shall compute it."""

    def __init__(self, detector: FaceDetector) -> None:
        """Wrap a trained detector."""
        super().__init__()
        self.detector = detector

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """The nine outputs for one image."""
        return self.detector.scrfd(picture)


class FaceRecogniser(nn.Module):
    """A small IResNet: 112 x 112 aligned faces to 512 numbers, to be normalised by who compares them."""

    def __init__(self, width: int, narrow: int) -> None:
        """A network of ``width`` channels at half resolution, with ``narrow`` channels before the last layer."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))
        sizes = [(width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 6 * width, 2), (6 * width, 6 * width, 1)]
        self.body = nn.Sequential(*[Residual(*size) for size in sizes])
        self.out = nn.Sequential(
            nn.BatchNorm2d(6 * width),
            nn.Conv2d(6 * width, narrow, 1, bias=False),
            nn.Flatten(),
            nn.Linear(narrow * 49, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING, affine=False),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """Embeddings (B, 512) of faces (B, 3, 112, 112) in [-1, 1]."""
        return self.out(self.body(self.stem(faces)))


class Residual(nn.Module):
    """A block of IResNet."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        """A block from ``inner`` to ``outer`` channels."""
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.PReLU(outer),
            nn.Conv2d(outer, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        same = inner == outer and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, features: Tensor) -> Tensor:
        """The features, refined."""
        return self.path(features) + self.skip(features)


def export_onnx(model: nn.Module, example: Tensor, file: Path, inputs: str, outputs: Sequence[str]) -> None:
    """Write one self-contained ONNX file with weights in half precision, which are made whole when it is loaded.

    A detector's image size stays free, a recogniser's batch.
    """
    single = len(outputs) == 1
    free = {2: "height", 3: "width"} if not single else {0: "batch"}
    axes = {inputs: free} | {name: {0: "batch" if single else f"rows_{name}"} for name in outputs}
    # The newer exporter writes the weights to a second file, which InsightFace would not find.
    torch.onnx.export(
        model.eval(), (example,), str(file), input_names=[inputs], output_names=list(outputs), dynamic_axes=axes,
        dynamo=False, opset_version=17,
    )  # fmt: skip
    halve(file)


def halve(file: Path) -> None:
    """Store the weights of an ONNX file in half precision; the arithmetic stays as it is."""
    model = onnx.load(file)
    graph, casts = model.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= LEAST_HALVED:
            half = numpy_helper.from_array(values.astype(np.float16), f"{weight.name}.half")
            casts.append(helper.make_node("Cast", [half.name], [weight.name], to=onnx.TensorProto.FLOAT))
            weight.CopyFrom(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, file)


def _unit(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
    )
