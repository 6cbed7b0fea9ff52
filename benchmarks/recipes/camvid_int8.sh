#!/usr/bin/env bash
# Trains the zoo's CamVid weights on with the rounding of 8 bit: bash FILE CAMVID_FOLDER; each ends with int8.onnx
set -euo pipefail
for model in fpn_aspp_mobilenetv2_tv_edgeailite deeplabv3plus_mobilenetv2_tv_edgeailite unet_aspp_mobilenetv2_tv_edgeailite; do
    edgeseg train --dataset camvid --data-path "$1" --model $model.camvid --pretrained default --quantize per_channel \
        --train-split trainval --val-split none --img-resize 600 800 --rand-crop 256 384 --epochs 1 --lr 0.00001 \
        --warmup-epochs 0 --resume auto -o runs/int8/$model
done
