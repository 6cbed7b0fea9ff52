#!/usr/bin/env bash
# Trains and scores the network of `edgeseg demo`: bash FILE MOBILENET_V2_WEIGHTS
set -euo pipefail
imagenet=$1
data=(--dataset streets --inputs flow image --tasks semantic depth motion)

# Always at one scale: another would be another camera, for which the depth is another.
edgeseg train "${data[@]}" --length 800 --val-split none --model deeplabv3plus_mobilenetv2_tv_edgeailite \
    --encoder-weights "$imagenet" --epochs 20 --img-resize 240 320 --rand-crop 240 320 --rand-scale 1 1 \
    --balancing uncertainty --depth-losses relative --depth-factors 1 --resume auto -o runs/streets
edgeseg evaluate "${data[@]}" --length 200 --split test --checkpoint runs/streets/last.safetensors
