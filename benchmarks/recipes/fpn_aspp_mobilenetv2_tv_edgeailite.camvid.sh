#!/usr/bin/env bash
# Trains and tests the FPN for CamVid, with its decoder from camvid.sh and the encoder of the first schedule of
# fpnsum_mobilenetv2.camvid.sh: bash FILE CAMVID_FOLDER, after both of these in the same folder
set -euo pipefail
data=(--dataset camvid --data-path "$1") model=fpn_aspp_mobilenetv2_tv_edgeailite recipes=$(dirname "$0")

python "$recipes/join.py" runs/$model/last.safetensors runs/fpnsum_mobilenetv2.camvid_first/last.safetensors \
    runs/$model.camvid_start.safetensors
# Two schedules; the second starts from the result of the first.
trainval=(--model $model --train-split trainval --val-split none --resume auto --teacher espnetv2_s2p0.camvid
    --img-resize 600 800 --rand-crop 384 512)
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_start.safetensors --epochs 23 --seed 2 \
    -o runs/$model.camvid_first
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_first/last.safetensors --epochs 24 --seed 3 \
    -o runs/$model.camvid
bash "$recipes/finish_camvid.sh" "$1" $model \
    "non-commercial research only: CamVid (CC BY-NC 4.0), IDD Lite and LabelMeFacade (research); distilled from weights \
for Cityscapes, whose terms hold too"
