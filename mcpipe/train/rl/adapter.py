"""The adapter that reinforcement learning trains: that of stage 2, or a fresh LoRA on top of it, which stays as it is.

PSR trains a fresh LoRA over the merged adapter of its supervised stage. Here that adapter is not merged into the
weights but runs along frozen, which computes the same up to rounding; both are written as one adapter of the summed
rank.
"""

from pathlib import Path

from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.added_lora import add_lora, combined_spec, save_combined
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.train.loop.outputs import save_gathered_adapter
from mcpipe.train.loop.runtime import is_main, trained_weights
from mcpipe.train.rl.params import TrainRLParams


def start_policy(pipeline: FluxPipeline, folder: Path, params: TrainRLParams) -> AdapterSpec:
    """Put the adapter of a folder into a pipeline, with a fresh LoRA on top if ``params.rank`` asks for one.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or does not fit this generator, or no layer can take a LoRA.
    """
    spec = load_adapter(pipeline, folder)
    if params.rank is not None:
        add_lora(pipeline.transformer, params.rank, params.seed)
    return spec


def save_policy(pipeline: FluxPipeline, spec: AdapterSpec, params: TrainRLParams, folder: Path) -> None:
    """Write the trained adapter, of whose start ``spec`` is the specification; all processes call it together."""
    if params.rank is None:
        save_gathered_adapter(pipeline, spec, folder)
        return
    weights = trained_weights(pipeline.transformer)
    if is_main():
        save_combined(pipeline.transformer, combined_spec(spec, params.rank), folder, weights)
