"""What the page of ``mcpipe demo`` does with its inputs; the page itself is tested by ``make test-demo``."""

import asyncio
import json

import numpy as np
import pytest
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from imports import ROOT
from PIL import Image

from mcpipe.cli.__main__ import main, parser
from mcpipe.cli.demo import server
from mcpipe.cli.demo.drawing import DemoModels, Drawn, StoppedError, Studio, face_sims, write_image
from mcpipe.cli.demo.request import BASE, MOST_BYTES, MOST_REFERENCES, adapters_in, check_references, checked
from mcpipe.cli.settings import read_content
from mcpipe.flux.adapters import AdapterSpec, add_adapter, save_adapter, trainable
from mcpipe.flux.backbone import load_generator
from mcpipe.models.protocols import Faces

PROMPT = "two people in a park"
SETTINGS = server.read_settings(read_content(ROOT / "params.yaml", None, []))


class OneFace:
    """Finds a face in every image that is not black; who it is depends on the brightness."""

    name = "one_face"

    def faces(self, picture):
        number = int(picture.any())
        height, width = picture.shape[:2]
        angle = picture.mean() / 255 * np.pi / 2
        return Faces(
            boxes=np.array([[0, 0, width, height]] * number, np.float32).reshape(-1, 4),
            scores=np.ones(number, np.float32),
            landmarks=np.zeros((number, 5, 2), np.float32),
            embeddings=np.array([[np.cos(angle), np.sin(angle)]] * number, np.float32).reshape(-1, 2),
        )


@pytest.fixture(scope="module")
def studio(generator_folder, tmp_path_factory):
    """A studio with an adapter that changes nothing and one that does."""
    folder = tmp_path_factory.mktemp("models")
    spec = AdapterSpec(rank=2, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE, shift=2.0)
    for name, size in (("untrained", 0.0), ("trained", 1.0)):
        pipeline = load_generator(generator_folder)
        add_adapter(pipeline.transformer, spec, seed=0)
        for parameter in trainable(pipeline.transformer).values():
            parameter.data += size
        (folder / name).mkdir()
        save_adapter(pipeline.transformer, spec, folder / name)
    pairs = SETTINGS.pairs.model_copy(update={"reference_size": REFERENCE_SIZE})
    return Studio(DemoModels(generator_folder, adapters_in(folder), OneFace(), pairs, IMAGE_SIZE, 2.0))


@pytest.fixture
def portraits(tmp_path):
    files = []
    for number in range(5):
        files.append(tmp_path / f"portrait {number}.jpg")
        exif = Image.Exif()
        exif[0x010E] = "where I live"
        Image.fromarray(np.full((40, 40, 3), 40 + 40 * number, np.uint8)).save(files[-1], exif=exif)
    return files


def request_of(files, **changes):
    inputs = {"prompt": PROMPT, "seed": 3, "num_steps": 2, "guidance": 4.0, "arms": ["untrained"]} | changes
    return checked(files, **inputs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"references": 0}, "no reference; upload a portrait"),
        ({"references": 5}, "5 references; at most 4"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": "a" * 2001}, "2001 letters"),
        ({"seed": 0.5}, "a whole number"),
        ({"seed": None}, "a whole number"),
        ({"seed": 2**65}, "a whole number"),
        ({"num_steps": 0}, "steps should be"),
        ({"num_steps": 51}, "steps should be"),
        ({"guidance": -1}, "guidance should be"),
        ({"guidance": float("nan")}, "guidance should be"),
        ({"arms": []}, "no adapter is chosen"),
    ],
)
def test_a_wrong_input_is_one_line(portraits, changes, reason):
    number = changes.pop("references", 2)
    with pytest.raises(ValueError, match=reason) as error:
        request_of(portraits[:number], **changes)
    assert "\n" not in str(error.value)


def test_files_that_are_too_large_or_gone_are_refused(tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match=r"large\.png is larger than 20 MB"):
        check_references([large])
    with pytest.raises(ValueError, match="no longer there"):
        check_references([tmp_path / "gone.png"])


def test_a_file_that_is_no_picture_or_has_no_face_is_named(studio, tmp_path, portraits):
    text, black = tmp_path / "letter.png", tmp_path / "black.png"
    text.write_text("no picture", encoding="utf-8")
    Image.new("RGB", (40, 40)).save(black)
    with pytest.raises(ValueError, match=r"reference 2, letter\.png: unreadable"):
        studio.faces([portraits[0], text])
    with pytest.raises(ValueError, match=r"reference 1, black\.png: no face"):
        next(studio.draw(request_of([black]), lambda *_: None, lambda: False))
    with pytest.raises(ValueError, match="no adapter lost; there are: trained, untrained, base"):
        next(studio.draw(request_of(portraits[:1], arms=["lost"]), lambda *_: None, lambda: False))


def test_arms_are_drawn_from_the_same_noise_with_a_map_and_a_score_per_reference(studio, portraits):
    assert studio.arms == ["trained", "untrained", BASE]
    steps = []
    request = request_of(portraits[:MOST_REFERENCES], arms=["untrained", BASE, "trained"])
    untrained, base, trained = studio.draw(request, lambda *step: steps.append(step), lambda: False)
    assert np.array_equal(untrained.picture, base.picture), "an adapter that changes nothing is the base"
    assert not np.array_equal(trained.picture, base.picture)
    for drawn in (untrained, base, trained):
        assert drawn.picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert [heat.shape for heat in drawn.maps] == [drawn.picture.shape] * MOST_REFERENCES
        assert len(drawn.face_sims) == MOST_REFERENCES
    shares = [share for share, _ in steps]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert "base: step 2 of 2" in [text for _, text in steps]
    again = next(studio.draw(request_of(portraits[:MOST_REFERENCES]), lambda *_: None, lambda: False))
    assert np.array_equal(again.picture, untrained.picture)


def test_stopping_takes_effect_before_the_next_step(studio, portraits):
    texts = []
    request = request_of(portraits[:1], num_steps=5)
    with pytest.raises(StoppedError):
        list(studio.draw(request, lambda _, text: texts.append(text), lambda: len(texts) > 2))
    assert texts[-1] == "untrained: step 2 of 5"
    assert next(studio.draw(request, lambda *_: None, lambda: False)).picture.any()


def test_a_face_is_compared_with_the_person_it_is_matched_with(studio, portraits):
    faces = studio.faces(portraits[:2])
    bright = np.full((40, 40, 3), 80, np.uint8)
    similarities = face_sims(bright, faces, OneFace())
    assert similarities[0] == 0.0
    assert similarities[1] > 0.99, "the picture is as bright as the second portrait"
    assert face_sims(np.zeros((40, 40, 3), np.uint8), faces, OneFace()) == (0.0, 0.0)


def test_the_download_says_how_it_was_drawn_and_nothing_of_the_references(tmp_path, portraits):
    picture = np.full((8, 8, 3), 9, np.uint8)
    request = request_of(portraits[:2], prompt="zwei Leute am Fluß")
    file = write_image(Drawn("trained", picture, (), (0.25, 0.5)), request, tmp_path)
    with Image.open(file) as image:
        about = json.loads(image.text["mcpipe"])
        assert np.array_equal(np.asarray(image), picture)
        assert not image.getexif()
        assert image.info.keys() == {"mcpipe"}
    expected = {"prompt": request.prompt, "seed": 3, "num_steps": 2, "guidance": 4.0, "adapter": "trained"}
    assert about.items() >= (expected | {"num_references": 2, "face_sim": [0.25, 0.5]}).items()
    content = file.read_bytes()
    assert b"portrait" not in content
    assert b"where I live" not in content


def test_without_gradio_the_verb_ends_in_one_line(monkeypatch, capfd):
    monkeypatch.setattr(server, "find_spec", lambda _: None)
    assert main(["demo"]) == 1
    assert capfd.readouterr().err == 'error: mcpipe demo needs Gradio; install it: pip install "mcpipe[demo]"\n'


def test_the_page_is_served_to_this_machine_alone_unless_asked_otherwise():
    assert parser(complete=True).parse_args(["demo"]).host == server.LOCAL == "127.0.0.1"


def test_every_answer_forbids_to_load_from_other_hosts():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def collect(message):
        sent.append(message)

    asyncio.run(server.only_own_files(app)({"type": "http"}, None, collect))
    headers = dict(sent[0]["headers"])
    assert headers[b"a"] == b"b"
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert b"http" not in headers[b"content-security-policy"]
    assert len(sent) == 2


def test_the_pool_may_be_missing(tmp_path, portraits):
    assert server.gallery(tmp_path / "nowhere") == []
    assert [file.name for file in server.gallery(tmp_path)] == [file.name for file in portraits]
