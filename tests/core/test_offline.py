"""Nothing phones home: every model is loaded while looking anything up outside is an error."""

import subprocess
import sys

from imports import ROOT

LOAD_EVERYTHING = """
import socket

def refuse(*arguments, **keywords):
    raise AssertionError(f"something wants to look outside: {arguments}")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse

from mcpipe.core.offline import stay_offline

stay_offline()

from pathlib import Path

import numpy as np
import yaml

from mcpipe.flux.backbone import load_generator
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.segmenter import Sam2

models = {name: Path(path) for name, path in yaml.safe_load(open("params.yaml"))["models"].items()}
picture = np.zeros((64, 64, 3), np.uint8)
UltralyticsPose(models["pose"], 0.5).people(picture)
Sam2(models["segmenter"]).masks(picture, np.array([[4, 4, 40, 40]], np.float32))
InsightFaces(models["faces"], 0.5, 256).faces(picture)
Qwen2_5VL(models["captioner"]).answer([picture], "Describe.", temperature=0.0, seed=0, max_tokens=4)
Clip(models["clip"]).texts(["a person"])
Dino(models["dino"]).pictures([picture])
HpsV2_1(models["hps"]).scores([picture], ["a person"])
load_generator(models["generator"])
print("all loaded")
"""


def test_no_model_looks_outside():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD_EVERYTHING], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("all loaded"), done.stderr[-2000:]
