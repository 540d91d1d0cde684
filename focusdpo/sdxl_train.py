"""One arm from one seed with SDXL; the output's name says which, such as ``focus_dpo-0``.

The start is the published IP-Adapter, which stays as it is; what is trained is a LoRA of SDXL's attention.
"""

from dataclasses import dataclass
from pathlib import Path

from focusdpo.train import arm_and_seed
from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.sdxl.lora import add_lora, save_lora
from mcpipe.sdxl.network import ReferenceUNet
from mcpipe.steps.sdxl_files import SdxlFiles
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.outputs import output_folder
from mcpipe.train.loop.runtime import is_main, process_state, trained_weights
from mcpipe.train.preference.data import read_pairs
from mcpipe.train.preference.params import PreferenceParams
from mcpipe.train.preference.records import SdxlPair
from mcpipe.train.preference.trainer import train_preference


@dataclass(frozen=True)
class Training:
    """Everything that the result of this training depends on."""

    arm: str
    seed: int
    encoded: Path
    files: SdxlFiles
    params: PreferenceParams


def run(  # noqa: PLR0913  one argument per path
    encoded: Path, pipeline: Path, ip_adapter: Path, image_encoder: Path, model: Path, params: PreferenceParams
) -> None:
    """Write the LoRA, its curves and a report; a second run of an interrupted training resumes it.

    Raises:
        ValueError: the output's name is no arm and seed.
    """
    process_state()
    arm, seed = arm_and_seed(model.name)
    report = Report("train", ("torch", "diffusers", "peft", "accelerate"))
    pairs, files = read_pairs(encoded, SdxlPair), SdxlFiles(pipeline, ip_adapter, image_encoder)
    sdxl = files.load()
    network = ReferenceUNet(sdxl, pairs.sizes[0])
    add_lora(sdxl.unet, params.rank, seed)
    training = Training(arm, seed, encoded, files, params)
    checkpoint = Checkpoint(progress_of(model) / fingerprint(training, report.packages))
    with output_folder(model) as folder:
        with curves(folder / "live") as on_step:
            report.facts = train_preference(network, pairs, arm, seed, params, on_step, checkpoint)
        weights = trained_weights(sdxl.unet)
        if is_main():
            save_lora(sdxl.unet, folder, weights)
        for key in pairs.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()
