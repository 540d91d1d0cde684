"""Instructions by which a language model invents prompts from categories, without an image (PSR, arXiv:2512.01236).

Both ask for one sentence in the form of the captions: count and place, then every subject once, from left to right.
The tiny zoo's `zoo/judge` was trained on these very texts, about up to three subjects, either all things or all people
of its world, which has no scene of both. Its answers have the grammar of `mcpipe.world.thing_captions.describe_things`
and, for people, of `mcpipe.world.captions.describe_scene`:

    two things on a table in a park: on the left a striped red and white cup with a blue handle; on the right a black
    lamp

Decoded greedily, an instruction always gives the same sentence; a temperature of about 1 and a seed give others.
"""

PROMPT_FROM_CATEGORIES = (
    "Write one prompt for a picture that shows all of: {categories}. Describe it in one sentence: how many subjects "
    "there are and where they are, then what every subject looks like, exactly once, from left to right."
)
"""Instruction for a prompt with several subjects. ``{categories}`` are nouns without articles, separated by ", ", from
left to right: "cup, lamp", or "person, person"."""

REFERENCE_SCENE = (
    "Write one prompt for a picture that shows {phrase} alone in a new place. Describe it in one sentence: where the "
    "subject is, then what it looks like, exactly once."
)
"""Instruction for a prompt that shows one subject in another place. ``{phrase}`` has its article and comes back in the
prompt as it is: "a striped red cup" gives "one thing in a street: in the middle a striped red cup"."""
