"""The paper's ablation in vitro: ``python -m studies.ablation [--plan FILE] [--seeds N...] [--out FOLDER]``."""

import sys
from pathlib import Path

from studies.ablation.analysis import AblationPlan, paths
from studies.ablation.oracle import with_oracles
from studies.ablation.page import write
from studies.command import Analysis, main

ABLATION = Analysis("ablation", "the paper's ablation on the tiny zoo", AblationPlan, paths, write, with_oracles)

if __name__ == "__main__":
    sys.exit(main(ABLATION, Path(__file__).parent))
