"""Columns of PSRBench in tables, and how its scores count."""

SUITE = "psrbench"
"""Name of the suite in ``mcpipe score`` and in ``metrics.json``."""
METRICS = (
    "subject_consistency",
    "semantic_alignment",
    "preference",
    "detection_rate",
    "subject_consistency_scripts",
    "semantic_alignment_scripts",
)
"""Metrics of PSRBench, for all of which higher is better."""
LABELS = {
    "subject_consistency": "SC",
    "semantic_alignment": "SA",
    "preference": "Preference",
    "subject_consistency_scripts": "SC, scripts",
    "semantic_alignment_scripts": "SA, scripts",
}
MEANINGS = {
    "subject_consistency": "cosine in DINO space of each subject and its reference, both cropped to the box of the "
    "category; a subject that is not located counts 0",
    "semantic_alignment": "score of a multimodal model over 10; for the subset Position, rules on the subjects' boxes",
    "preference": "HPSv3, whose scores are several units, or HPS v2.1, a cosine; metrics.json says which",
    "subject_consistency_scripts": "the same as the published scripts count it: the whole picture for a subject that "
    "is not located, missing pictures left out",
    "semantic_alignment_scripts": "the same as the published scripts count it: 5 of 10 for an answer that cannot be "
    "parsed, prompts without a listed phrase and missing pictures left out",
}
POLICY = (
    "A subject that is not located, and every score of a missing picture, counts 0 and stays in the mean. An answer of "
    "the judge that cannot be parsed after all attempts is missing, and counted. The columns 'scripts' count as the "
    "published scripts do."
)
"""Note beside every table of PSRBench."""
