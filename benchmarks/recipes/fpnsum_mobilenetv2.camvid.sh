#!/usr/bin/env bash
# Trains and tests fpnsum for CamVid, from its weights for photos of streets: bash FILE CAMVID_FOLDER
set -euo pipefail
data=(--dataset camvid --data-path "$1") model=fpnsum_mobilenetv2 recipes=$(dirname "$0")

mkdir -p runs
python "$recipes/camvid_start.py" $model.street_photos runs/${model}_start.safetensors
edgeseg train "${data[@]}" --train-split trainval --val-split none --model $model \
    --pretrained runs/${model}_start.safetensors --teacher espnetv2_s2p0.camvid \
    --epochs 24 --img-resize 600 800 --rand-crop 384 512 --resume auto -o runs/$model.camvid
edgeseg evaluate "${data[@]}" --split trainval --checkpoint runs/$model.camvid/last.safetensors \
    --store-biases runs/$model.camvid/biased.safetensors
python "$recipes/ship.py" runs/$model.camvid/biased.safetensors runs/$model.camvid.safetensors
edgeseg evaluate "${data[@]}" --split test --checkpoint runs/$model.camvid.safetensors
