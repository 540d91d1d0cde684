"""The settings of every pipeline stage, by its section of params.yaml."""

from mcpipe.core.params import Params
from mcpipe.curate.frames import FramesParams
from mcpipe.curate.identity import IdentityParams
from mcpipe.curate.samples import SamplesParams
from mcpipe.curate.subjects import SubjectsParams
from mcpipe.flux.encode import EncodeParams
from mcpipe.report.gallery import ReportParams
from mcpipe.steps.captions import CaptionsParams
from mcpipe.steps.evaluate import EvaluateParams
from mcpipe.steps.generate import GenerateParams
from mcpipe.steps.pairs import PairsParams
from mcpipe.train.multi import TrainMultiParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.single import TrainSingleParams
from mcpipe.world.clips import WorldParams

SECTIONS: dict[str, type[Params]] = {
    "world": WorldParams,
    "frames": FramesParams,
    "subjects": SubjectsParams,
    "identity": IdentityParams,
    "captions": CaptionsParams,
    "samples": SamplesParams,
    "encode": EncodeParams,
    "train_single": TrainSingleParams,
    "train_multi": TrainMultiParams,
    "pairs": PairsParams,
    "train_rl": TrainRLParams,
    "generate": GenerateParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
}
"""Section name, which is the stage's, and the model that checks it."""
