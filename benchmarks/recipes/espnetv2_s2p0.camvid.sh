#!/usr/bin/env bash
# Trains and tests ESPNetv2 for CamVid, from its published weights for Cityscapes: bash FILE CAMVID_FOLDER
set -euo pipefail
data=(--dataset camvid --data-path "$1") model=espnetv2_s2p0

mkdir -p runs
python "$(dirname "$0")/camvid_start.py" $model.cityscapes runs/${model}_start.safetensors

# Three schedules; the second and the third start from the result of the one before.
trainval=(--model $model --train-split trainval --val-split none --resume auto --warmup-epochs 1 --lr 0.005
    --img-resize 600 800 --rand-crop 384 512)
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_start.safetensors --epochs 15 -o runs/${model}_first
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_first/last.safetensors --epochs 16 --seed 2 \
    -o runs/${model}_second
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_second/last.safetensors --epochs 20 --seed 3 \
    -o runs/$model.camvid
bash "$(dirname "$0")/finish_camvid.sh" "$1" $model \
    "CC BY-NC 4.0 and Cityscapes' terms: CamVid is for non-commercial use; it started from weights for Cityscapes"
