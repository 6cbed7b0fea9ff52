#!/usr/bin/env bash
# Trains fpnsum on photos of streets in Cityscapes' classes, and scores it: bash FILE CAMVID IDD_LITE LABELMEFACADE
set -euo pipefail
camvid=$1 idd_lite=$2 labelmefacade=$3
recipes=$(dirname "$0") model=fpnsum_mobilenetv2 out=runs/fpnsum_mobilenetv2.street_photos

# The labels of three datasets, in whose classes a network that knows Cityscapes tells apart what they do not.
python "$recipes/street_photos.py" runs/street_photos "$camvid" "$idd_lite" "$labelmefacade"

edgeseg train --dataset images_masks --data-path runs/street_photos --model $model.camvid --val-split none \
    --epochs 10 --img-resize 480 640 --rand-crop 288 352 --resume auto -o $out
python "$recipes/ship.py" $out/last.safetensors $out.safetensors \
    "non-commercial research only: CamVid (CC BY-NC 4.0), IDD Lite and LabelMeFacade (research)"
python "$recipes/street_scores.py" espnetv2_s2p0.cityscapes $out.safetensors \
    --camvid "$camvid" --idd-lite "$idd_lite" --labelmefacade "$labelmefacade"
