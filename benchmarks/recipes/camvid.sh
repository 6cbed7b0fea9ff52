#!/usr/bin/env bash
# Trains and tests DeepLabV3+ and the UNet for CamVid, and the FPN that fpn_aspp_mobilenetv2_tv_edgeailite.camvid.sh and
# the weights for photos of streets start from: bash FILE CAMVID_FOLDER MOBILENET_V2_WEIGHTS
set -euo pipefail
camvid=$1 imagenet=$2
data=(--dataset camvid --data-path "$camvid")
fpn=fpn_aspp_mobilenetv2_tv_edgeailite deeplab=deeplabv3plus_mobilenetv2_tv_edgeailite unet=unet_aspp_mobilenetv2_tv_edgeailite

# The input size was chosen on val, from short runs on train.
for size in "600 800" "720 960"; do
    edgeseg train "${data[@]}" --model $fpn --encoder-weights "$imagenet" --epochs 10 --img-resize $size \
        --rand-crop 384 512 --resume auto -o "runs/camvid_choice_${size/ /x}"
done

# First at 640x480, which is cheap: one network, whose encoder the others start from.
edgeseg train "${data[@]}" --model $fpn --encoder-weights "$imagenet" --epochs 40 --rand-scale 0.375 1.125 \
    --train-split trainval --val-split none --resume auto -o runs/camvid_first
first=runs/camvid_first/last.safetensors

# Then each at 800x600, once on train and val; DeepLabV3+ and the UNet once on test.
second=(--train-split trainval --val-split none --img-resize 600 800 --rand-crop 384 512 --epochs 24 --resume auto)
edgeseg train "${data[@]}" "${second[@]}" --model $fpn --pretrained $first -o runs/$fpn
edgeseg train "${data[@]}" "${second[@]}" --model $deeplab --encoder-weights $first -o runs/$deeplab
edgeseg train "${data[@]}" "${second[@]}" --model $unet --encoder-weights $first -o runs/$unet
for model in $deeplab $unet; do
    python "$(dirname "$0")/ship.py" runs/$model/last.safetensors runs/$model.camvid.safetensors \
        "CC BY-NC 4.0 (CamVid): for non-commercial use"
    edgeseg evaluate "${data[@]}" --split test --checkpoint runs/$model.camvid.safetensors
done
