#!/usr/bin/env bash
# Chooses biases for the last weights of a run, saves these as the package has them in runs/NAME.camvid.safetensors, and
# tests them: bash FILE CAMVID_FOLDER NAME [LICENSE], after a run in runs/NAME.camvid
set -euo pipefail
data=(--dataset camvid --data-path "$1") run=runs/$2.camvid

edgeseg evaluate "${data[@]}" --split trainval --checkpoint $run/last.safetensors --store-biases $run/biased.safetensors
python "$(dirname "$0")/ship.py" $run/biased.safetensors $run.safetensors "${3:-}"
edgeseg evaluate "${data[@]}" --split test --checkpoint $run.safetensors
