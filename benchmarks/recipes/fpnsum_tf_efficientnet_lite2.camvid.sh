#!/usr/bin/env bash
# Trains and tests fpnsum on EfficientNet-Lite2 for CamVid: bash FILE CAMVID_FOLDER EFFICIENTNET_LITE2_WEIGHTS
set -euo pipefail
model=fpnsum_tf_efficientnet_lite2
trainval=(--dataset camvid --data-path "$1" --model $model --train-split trainval --val-split none --resume auto)

# First at 640x480 with small crops, which is cheap.
edgeseg train "${trainval[@]}" --encoder-weights "$2" --decoder-lr 10 --img-resize 480 640 --rand-crop 256 352 \
    --epochs 16 -o runs/$model.camvid_first
# Then at 800x600, with the networks on the same photos as teachers.
edgeseg train "${trainval[@]}" --pretrained runs/$model.camvid_first/last.safetensors \
    --teacher espnetv2_s2p0.camvid fpn_aspp_mobilenetv2_tv_edgeailite.camvid fpnsum_mobilenetv2.camvid \
    --img-resize 600 800 --rand-crop 384 512 --epochs 15 --seed 2 --no-bf16 -o runs/$model.camvid
bash "$(dirname "$0")/finish_camvid.sh" "$1" $model \
    "non-commercial research only: CamVid (CC BY-NC 4.0); distilled from weights for Cityscapes, IDD Lite and \
LabelMeFacade, whose terms hold too"
