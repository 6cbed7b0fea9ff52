#!/usr/bin/env bash
# Trains and tests fpnsum for CamVid: bash FILE CAMVID_FOLDER MOBILENET_V2_WEIGHTS PHOTO_FOLDER...
set -euo pipefail
camvid=$1 imagenet=$2
shift 2
data=(--dataset camvid --data-path "$camvid") model=fpnsum_mobilenetv2
trainval=(--train-split trainval --val-split none --model $model --resume auto)
large=(--img-resize 600 800 --rand-crop 384 512) espnetv2=(--teacher espnetv2_s2p0.camvid espnetv2_s2p0.cityscapes)

# First at 480x360 on CamVid and photos of streets without labels, which two trained networks teach.
edgeseg train "${data[@]}" "${trainval[@]}" --encoder-weights "$imagenet" --photos "$@" \
    --teacher espnetv2_s2p0.cityscapes fpn_aspp_mobilenetv2_tv_edgeailite.camvid \
    --epochs 6 --decoder-lr 10 --img-resize 360 480 --rand-crop 192 256 -o runs/${model}_1

# Then at 800x600 on CamVid alone.
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_1/last.safetensors \
    --epochs 24 "${large[@]}" -o runs/${model}_2

# Then on CamVid and the photos with better teachers, on CamVid with these teachers, and once on test.
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_2/last.safetensors --photos "$@" \
    "${espnetv2[@]}" --distillation 0.5 --epochs 6 "${large[@]}" --bf16 -o runs/${model}_3
edgeseg train "${data[@]}" "${trainval[@]}" --pretrained runs/${model}_3/last.safetensors \
    "${espnetv2[@]}" --distillation 0.3 --epochs 8 "${large[@]}" --lr 0.005 --seed 2 --bf16 -o runs/${model}_4
python "$(dirname "$0")/ship.py" runs/${model}_4/last.safetensors runs/$model.camvid.safetensors
edgeseg evaluate "${data[@]}" --split test --checkpoint runs/$model.camvid.safetensors
