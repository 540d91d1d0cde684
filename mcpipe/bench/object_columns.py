"""Columns of the object benchmark in tables, and how its scores count."""

SUITE = "objects"
"""Name of the suite in ``metrics.json``."""
AVERAGED = ("clip_t", "dino_i", "clip_i", "hps")
"""The columns of the paper's tables for objects; "overall" is their plain mean."""
METRICS = (*AVERAGED, "overall", "detection_rate", "pick_score", "swap_rate")
CONTROLS = ("dino_i_others", "dino_i_floor", "dino_i_swapped", "dino_i_ceiling", "object_lift", "own_minus_cross")
"""Controls of DINO-I: its value without its cause, its ceiling, and confusions between objects."""
OWN_CONTROLS = CONTROLS[:-1]
"""Those that people do not have."""
LABELS = {
    "dino_i_others": "Other objects",
    "dino_i_floor": "No reference",
    "dino_i_swapped": "Reordered",
    "dino_i_ceiling": "Ceiling",
    "object_lift": "Object lift",
}
MEANINGS = {
    "dino_i_others": "DINO-I of pictures drawn from other objects' references, same text and noise",
    "dino_i_floor": "DINO-I of pictures drawn without references, same text and noise",
    "dino_i_swapped": "DINO-I of pictures drawn from the references in another order; should equal DINO-I",
    "dino_i_ceiling": "DINO-I of held-out real targets after the VAE, compared with their own references",
    "object_lift": "DINO-I less that with other objects' references: what the references add to the text",
}
POLICY = (
    "Every object is located by its own phrase, cut out on white like its reference, and compared with it; one that is "
    "not located counts 0 and stays in the mean. Overall is the mean of CLIP-T, DINO-I, CLIP-I and HPS. Higher is "
    "better, except for Swapped, a rate over the objects found."
)
"""Note beside every table of objects."""
POLICY_CONTROLS = (
    "DINO-I says something of references only where it is above its values without them and with other objects'. "
    "Intervals are over objects, since pictures that share one are not independent."
)
"""Note beside every table of controls."""
