"""Whether stage 3 works: ``python -m studies.alignment [--plan FILE] [--seeds N...] [--out FOLDER]``.

From one adapter of stage 2: the paper's IPPO, the same with a ratio per step, and no learning, each with every seed;
and the identity rewards of images in which a face stands for several people.
"""

import sys
from pathlib import Path

from studies.alignment.analysis import AlignmentPlan, paths
from studies.alignment.page import write
from studies.command import Analysis, main

ALIGNMENT = Analysis("alignment", "stage 3, its variants and its start compared", AlignmentPlan, paths, write)

if __name__ == "__main__":
    sys.exit(main(ALIGNMENT, Path(__file__).parent))
