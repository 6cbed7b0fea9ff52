"""Saves trained weights as the package has them, with convolutions in float16: python FILE CHECKPOINT OUT [LICENSE]"""

from __future__ import annotations

import sys

import torch

import edgeseg
from edgeseg.storage.checkpoint import read_checkpoint_config


def main(checkpoint: str, output: str, license: str = "") -> None:
    """Writes the file, with the notes of the checkpoint on its origin, and with another licence if one is given."""
    config = read_checkpoint_config(checkpoint)
    if config is None:
        raise SystemExit(f"{checkpoint} was not written by edgeseg")
    model = edgeseg.create_model(config.name, checkpoint_path=checkpoint)
    notes = dict(model.config.notes)
    if license:
        notes["license"] = license
    edgeseg.save_checkpoint(model, output, dtype=torch.float16, **notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
