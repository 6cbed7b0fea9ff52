#!/usr/bin/env bash
# Trains and tests fpnsum for CamVid, from its weights for photos of streets: bash FILE CAMVID_FOLDER
set -euo pipefail
data=(--dataset camvid --data-path "$1") model=fpnsum_mobilenetv2 recipes=$(dirname "$0")

mkdir -p runs
python "$recipes/camvid_start.py" $model.street_photos runs/$model.camvid_start.safetensors

# Four schedules, each from the result of the one before.
trainval=(--model $model --train-split trainval --val-split none --resume auto --teacher espnetv2_s2p0.camvid
    --img-resize 600 800 --rand-crop 384 512)
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_start.safetensors --epochs 24 -o runs/$model.camvid_first
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_first/last.safetensors --epochs 28 --seed 2 \
    -o runs/$model.camvid_second
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_second/last.safetensors --epochs 27 --seed 3 \
    -o runs/$model.camvid_third
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/$model.camvid_third/last.safetensors --epochs 52 --seed 4 \
    --teacher espnetv2_s2p0.camvid fpn_aspp_mobilenetv2_tv_edgeailite.camvid runs/$model.camvid_third/last.safetensors \
    -o runs/$model.camvid
bash "$recipes/finish_camvid.sh" "$1" $model
