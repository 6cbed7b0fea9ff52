"""Measures how long a new process takes to start: python benchmarks/startup.py

Writes the table in docs/benchmarks.md.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from measuring import machine, markdown, spread, write_table

from edgeseg.deploy.timing import alternating

NAME = "fpn_aspp_mobilenetv2_tv_edgeailite"
STARTS = {
    "python": "pass",
    "import edgeseg": "import edgeseg",
    "edgeseg --help": "import sys; sys.argv = ['edgeseg', '--help']; from edgeseg.cli import main; main()",
    "import torch": "import torch",
    "create_model": f"import edgeseg; edgeseg.create_model('{NAME}')",
    "create_model(pretrained=True)": f"import edgeseg; edgeseg.create_model('{NAME}', pretrained=True)",
    "create_model, encoder of timm": "import edgeseg; edgeseg.create_model('fpn', encoder='mobilenetv3_small_050')",
    "import torchvision": "import torchvision",
    "import timm": "import timm",
    "import segmentation_models_pytorch": "import segmentation_models_pytorch",
}


def start(code: str) -> None:
    """Runs code in a new Python process."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measures all starts in turns and writes the table."""
    turns = alternating({name: partial(start, code) for name, code in STARTS.items()}, rounds=7, warm_up=1)
    rows = [(name, spread(seconds)) for name, seconds in turns.items()]
    table = markdown("a new process that does | seconds (lowest to highest)", rows)
    write_table("benchmarks.md", "startup", f"{table}\n\n{machine()}.")


if __name__ == "__main__":
    main()
