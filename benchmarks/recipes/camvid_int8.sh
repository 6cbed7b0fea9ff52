#!/usr/bin/env bash
# Networks trained on CamVid, trained on with the rounding of 8 bit: bash FILE CAMVID_FOLDER; each ends with int8.onnx
set -euo pipefail
data=(--dataset camvid --data-path "$1" --train-split trainval --val-split none --resume auto)
rounded=(--quantize per_channel --distillation 1 --optimizer adam --lr 0.00001 --decoder-lr 1 --epochs 1
    --warmup-epochs 0 --rand-crop 256 384 --rand-scale 0.75 1.25)

for model in fpn_aspp_mobilenetv2_tv_edgeailite deeplabv3plus_mobilenetv2_tv_edgeailite unet_aspp_mobilenetv2_tv_edgeailite \
    fpnsum_mobilenetv2; do
    edgeseg train "${data[@]}" "${rounded[@]}" --model $model.camvid --pretrained default --img-resize 600 800 \
        -o runs/int8/$model
done
