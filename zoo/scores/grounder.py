"""Scores of the grounder: things located by phrases, and phrases about nothing refused."""

from mcpipe.models.florence import Florence2
from zoo.build.grounder_scores import score
from zoo.scores.draw import Job
from zoo.scores.figures import Figure
from zoo.scores.things import drawn_things


def measure(job: Job) -> list[Figure]:
    """Ground every thing of freshly drawn scenes, in its scene and in its reference."""
    pictures = drawn_things(job.seed)
    scored = score(Florence2(job.zoo / "grounder", 0.0), pictures)
    total = len(pictures.seats())
    return [
        Figure("mean_iou", scored["mean_iou"], total, "phrases", 0.7),
        Figure("located", scored["located"], total, "phrases", 0.9),
        Figure("reference_iou", scored["reference_iou"], total, "references", 0.7, ours=True),
        Figure("absent_refused", scored["absent_refused"], len(pictures.scenes), "scenes"),
        Figure("several_found", scored["several_found"], len(pictures.scenes), "scenes"),
    ]
