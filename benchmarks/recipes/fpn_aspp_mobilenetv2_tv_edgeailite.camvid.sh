#!/usr/bin/env bash
# Trains and tests fpn_aspp_mobilenetv2_tv_edgeailite.camvid: bash FILE CAMVID_FOLDER MOBILENET_V2_WEIGHTS
set -euo pipefail
camvid=$1 imagenet=$2
model=fpn_aspp_mobilenetv2_tv_edgeailite
common=(--dataset camvid --data-path "$camvid")

# The input size was chosen on val, from a short run on train.
edgeseg train "${common[@]}" --model $model --encoder-weights "$imagenet" --epochs 10 --img-resize 360 480 --rand-scale 0.375 1.5 \
    -o runs/camvid_choice
for size in "360 480" "420 560" "480 640" "540 720"; do
    edgeseg evaluate "${common[@]}" --split val --img-resize $size --checkpoint runs/camvid_choice/last.safetensors
done

# Once on train and val, then once on test.
edgeseg train "${common[@]}" --model $model --encoder-weights "$imagenet" --epochs 40 --rand-scale 0.375 1.125 \
    --train-split trainval --val-split none -o runs/camvid
edgeseg evaluate "${common[@]}" --split test --checkpoint runs/camvid/last.safetensors
