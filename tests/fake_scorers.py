"""Judges that see colours instead of people, for tests of what is done with their answers."""

import numpy as np

from mcpipe.bench.metrics import MetricScorers
from mcpipe.models.protocols import Faces

SIZE = 8
MARKS = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.2], [0.15, 0.2]])


def unit(*numbers):
    vector = np.array(numbers, np.float64)
    return vector / np.linalg.norm(vector)


class Encoder:
    """Embeds a picture by its mean colour, a text by its length."""

    def pictures(self, pictures):
        return np.stack([unit(*(picture.reshape(-1, 3).mean(axis=0) + 1)) for picture in pictures])

    def texts(self, texts):
        return np.stack([unit(len(text), 1, 1) for text in texts])


class Scorer:
    def scores(self, pictures, prompts):
        return np.array([0.28 for _ in zip(pictures, prompts, strict=True)])


class Finder:
    """Returns the faces that it was given."""

    def __init__(self, embeddings, order=None):
        self.embeddings = np.asarray(embeddings, np.float64).reshape(-1, 3)
        self.order = list(range(len(self.embeddings))) if order is None else order

    def faces(self, picture):
        boxes = np.array([[SIZE * i, 0, SIZE * (i + 1), SIZE] for i in range(len(self.embeddings))], np.float64)
        boxes, embeddings = boxes.reshape(-1, 4)[self.order], self.embeddings[self.order]
        landmarks = boxes[:, None, :2] + SIZE * (0.5 + MARKS)
        return Faces(boxes, np.ones(len(embeddings)), landmarks, embeddings)


class Heldout:
    """Detects one face in every image, with an embedding that depends on its colour."""

    def faces(self, picture):
        return Faces(np.zeros((1, 4)), np.ones(1), np.zeros((1, 5, 2)), Encoder().pictures([picture]))


def crop(picture, box):
    return picture[:, int(box[0]) : int(box[2])]


def metric_scorers(finder, heldout=None):
    return MetricScorers(
        faces=finder, heldout=heldout or Heldout(), clip=Encoder(), dino=Encoder(), hps=Scorer(), crop=crop
    )
