"""The page of ``mcpipe demo`` in a headless Chromium: ``make test-demo``."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from imports import ROOT
from PIL import Image

pytest.importorskip("gradio", reason="make test-demo installs Gradio")
webdriver = pytest.importorskip("selenium.webdriver", reason="make test-demo installs Selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from mcpipe.core.params import read_params  # noqa: E402
from mcpipe.flux.adapters import AdapterSpec, add_adapter, save_adapter, trainable  # noqa: E402
from mcpipe.flux.backbone import load_generator  # noqa: E402
from mcpipe.world.clips import WorldParams  # noqa: E402
from stages.s00_world import write_portrait  # noqa: E402

PATIENCE_S = 120
UPLOADS = "input[type=file]"
LONGEST_IMAGE_S = 10
"""On two cores, with the tiny zoo."""
SCREENSHOT = os.environ.get("MCPIPE_SCREENSHOT")
"""File for a picture of the page; none is written without it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A face pool, an adapter, and files to upload."""
    data = tmp_path_factory.mktemp("demo")
    for folder in ("faces", "models/adapter", "uploads"):
        (data / folder).mkdir(parents=True)
    params = read_params(ROOT / "params.yaml", "world", WorldParams)
    for number in range(8):
        write_portrait(data / "faces", number, params)
    pipeline = load_generator(ROOT / "zoo" / "generator")
    spec = AdapterSpec(rank=2, experts=None, image_size=96, reference_size=48, shift=4.0)
    add_adapter(pipeline.transformer, spec, seed=0)
    for parameter in trainable(pipeline.transformer).values():
        parameter.data += 0.005
    save_adapter(pipeline.transformer, spec, data / "models" / "adapter")
    for number in range(3):
        Image.open(data / "faces" / f"face_00{number}.png").save(data / "uploads" / f"person {number}.jpg", quality=95)
    (data / "uploads" / "letter.png").write_text("no picture", encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def address(data):
    """The address of a page that is served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mcpipe.cli", "demo", "--port", str(port), "--adapters", str(data / "models")]
    server = subprocess.Popen(
        [*command, "-S", f"source.faces={data / 'faces'}"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    line = server.stdout.readline()
    assert line == f"http://127.0.0.1:{port}: only this machine sees it; end with Ctrl-C\n"
    for _ in range(PATIENCE_S):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            break
        except OSError:
            time.sleep(1)
    yield f"http://127.0.0.1:{port}/"
    server.send_signal(signal.SIGINT)
    server.wait(30)


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1050"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path_factory.mktemp("downloads"))})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    browser.get(address)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, UPLOADS))
    return browser


def wait(browser, condition, patience_s=PATIENCE_S):
    return WebDriverWait(browser, patience_s, 0.2).until(lambda _: condition())


def upload(page, *files):
    (field, *_) = page.find_elements(By.CSS_SELECTOR, UPLOADS)
    page.execute_script("arguments[0].value = ''", field)  # a dialog replaces the last choice; keys would add to it
    field.send_keys("\n".join(map(str, files)))


def message(page):
    return page.find_element(By.CSS_SELECTOR, "#message textarea, #message input").get_attribute("value")


def pictures(page, gallery):
    images = page.find_elements(By.CSS_SELECTOR, f"#{gallery} .grid-container img")
    return [image for image in images if page.execute_script("return arguments[0].naturalWidth", image)]


def write_prompt(page, text):
    field = page.find_element(By.CSS_SELECTOR, "#prompt textarea")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text)


def press(page, name):
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, f"button#{name}, #{name} button"))


def test_upload_draw_and_see_the_maps(page, data):
    upload(page, data / "uploads" / "person 0.jpg")
    wait(page, lambda: len(pictures(page, "people")) == 1)
    pool = wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#pool .thumbnail-item"))
    page.execute_script("arguments[0].click()", pool[3])
    wait(page, lambda: len(pictures(page, "people")) == 2)
    for box in page.find_elements(By.CSS_SELECTOR, "#arms input[type=checkbox]"):
        if not box.is_selected():
            page.execute_script("arguments[0].click()", box)
    write_prompt(page, "two people in a park: a person wearing a red shirt; a person wearing a blue shirt")
    began = time.monotonic()
    press(page, "draw")
    wait(page, lambda: message(page) == "2 of 2")
    wait(page, lambda: len(pictures(page, "images")) == 2)
    assert (time.monotonic() - began) / 2 < LONGEST_IMAGE_S
    wait(page, lambda: len(pictures(page, "maps")) == 4)
    text = page.find_element(By.CSS_SELECTOR, "#images").text + page.find_element(By.CSS_SELECTOR, "#maps").text
    assert "adapter: face-sim" in text
    assert "base, reference 2: face-sim" in text
    if SCREENSHOT:
        page.save_screenshot(SCREENSHOT)
    link = wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#files a[href]"))[0].get_attribute("href")
    with Image.open(urllib.request.urlopen(link)) as image:
        assert json.loads(image.text["mcpipe"])["num_references"] == 2
        assert np.asarray(image).shape == (96, 96, 3)


def test_nothing_comes_from_another_host(page, address):
    entries = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    answered = {
        entry["params"]["response"]["url"] for entry in entries if entry["method"] == "Network.responseReceived"
    }
    assert len(answered) > 5
    assert all(url.startswith((address, "data:", "blob:")) for url in answered), answered


@pytest.mark.parametrize(
    ("files", "prompt", "expected"),
    [
        ([], "two people", "no reference; upload a portrait or choose one from the gallery"),
        (["person 0.jpg"], " ", "the prompt is empty; describe the picture and everybody in it"),
    ],
)
def test_what_is_missing_is_one_line(page, data, files, prompt, expected):
    for file in files:
        upload(page, data / "uploads" / file)
        wait(page, lambda: len(pictures(page, "people")) == 1)
    write_prompt(page, prompt)
    press(page, "draw")
    wait(page, lambda: message(page) == expected)


def test_a_picture_that_is_none_and_a_fifth_reference_are_one_line(page, data):
    upload(page, data / "uploads" / "letter.png")
    wait(page, lambda: message(page).startswith("reference 1, letter.png: unreadable"))
    assert not pictures(page, "people")
    people = [data / "uploads" / f"person {number}.jpg" for number in range(3)]
    upload(page, *people)
    wait(page, lambda: len(pictures(page, "people")) == 3)
    upload(page, *people[:2])
    wait(page, lambda: message(page) == "5 references; at most 4 are possible")
    assert len(pictures(page, "people")) == 3


def test_a_drawing_can_be_stopped(page, data):
    upload(page, data / "uploads" / "person 1.jpg")
    wait(page, lambda: len(pictures(page, "people")) == 1)
    write_prompt(page, "a person in a park")
    steps = page.find_element(By.CSS_SELECTOR, "#steps input[type=number]")
    steps.send_keys(Keys.CONTROL, "a")
    steps.send_keys("50", Keys.TAB)
    press(page, "draw")
    wait(page, lambda: "step" in page.find_element(By.TAG_NAME, "body").text)
    press(page, "stop")
    wait(page, lambda: message(page) == "stopped")
