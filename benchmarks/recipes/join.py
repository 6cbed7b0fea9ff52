"""Writes the decoder of one checkpoint with the encoder of another: python FILE CHECKPOINT ENCODER_CHECKPOINT OUT"""

from __future__ import annotations

import sys

import edgeseg
from edgeseg.cli.model import load_trained


def main(checkpoint: str, encoder: str, output: str) -> None:
    """Writes the file."""
    trained = load_trained(checkpoint)
    model = edgeseg.create_model(trained.name, tasks=trained.tasks, encoder_weights=encoder)
    model.decoders.load_state_dict(trained.decoders.state_dict())
    model.configure(preprocess=trained.preprocess)
    edgeseg.save_checkpoint(model, output, **model.config.notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
