#!/usr/bin/env bash
# Trains fpnsum on photos of streets in Cityscapes' classes, and scores it:
# bash FILE CAMVID IDD_LITE LABELMEFACADE MOBILENET_V2_WEIGHTS, after camvid.sh in the same folder
set -euo pipefail
camvid=$1 idd_lite=$2 labelmefacade=$3 imagenet=$4
recipes=$(dirname "$0") model=fpnsum_mobilenetv2 out=runs/fpnsum_mobilenetv2.street_photos
trainval=(--dataset camvid --data-path "$camvid" --train-split trainval --val-split none --model $model --resume auto)

# First at 480x360 on CamVid and photos of streets without labels, which two trained networks teach.
edgeseg train "${trainval[@]}" --encoder-weights "$imagenet" --photos "$idd_lite/leftImg8bit" "$labelmefacade/images" \
    --teacher espnetv2_s2p0.cityscapes runs/fpn_aspp_mobilenetv2_tv_edgeailite/last.safetensors \
    --epochs 6 --decoder-lr 10 --img-resize 360 480 --rand-crop 192 256 -o runs/${model}_first

# Then at 800x600 on CamVid alone.
edgeseg train "${trainval[@]}" --pretrained runs/${model}_first/last.safetensors \
    --epochs 24 --img-resize 600 800 --rand-crop 384 512 -o runs/${model}_second

# The labels of three datasets, in whose classes a network that knows Cityscapes tells apart what they do not.
python "$recipes/street_photos.py" runs/street_photos "$camvid" "$idd_lite" "$labelmefacade"

edgeseg train --dataset images_masks --data-path runs/street_photos --model $model --val-split none \
    --pretrained runs/${model}_second/last.safetensors \
    --epochs 10 --img-resize 480 640 --rand-crop 288 352 --resume auto -o $out
python "$recipes/ship.py" $out/last.safetensors $out.safetensors \
    "non-commercial research only: CamVid (CC BY-NC 4.0), IDD Lite and LabelMeFacade (research); distilled from weights \
for Cityscapes, whose terms hold too"
python "$recipes/street_scores.py" espnetv2_s2p0.cityscapes $out.safetensors \
    --camvid "$camvid" --idd-lite "$idd_lite" --labelmefacade "$labelmefacade"
