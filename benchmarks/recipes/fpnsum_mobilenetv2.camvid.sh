#!/usr/bin/env bash
# Trains and tests fpnsum for CamVid: bash FILE CAMVID_FOLDER MOBILENET_V2_WEIGHTS PHOTO_FOLDER...
set -euo pipefail
camvid=$1 imagenet=$2
shift 2
data=(--dataset camvid --data-path "$camvid") model=fpnsum_mobilenetv2
trainval=(--train-split trainval --val-split none --model $model --resume auto)

# First at 480x360 on CamVid and photos of streets without labels, which two trained networks teach.
edgeseg train "${data[@]}" "${trainval[@]}" --encoder-weights "$imagenet" --photos "$@" \
    --teacher espnetv2_s2p0.cityscapes fpn_aspp_mobilenetv2_tv_edgeailite.camvid \
    --epochs 6 --decoder-lr 10 --img-resize 360 480 --rand-crop 192 256 -o runs/${model}_streets

# Then at 800x600 on CamVid alone, and once on test.
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_streets/last.safetensors \
    --epochs 24 --img-resize 600 800 --rand-crop 384 512 -o runs/$model
python "$(dirname "$0")/ship.py" runs/$model/last.safetensors runs/$model.camvid.safetensors
edgeseg evaluate "${data[@]}" --split test --checkpoint runs/$model.camvid.safetensors
