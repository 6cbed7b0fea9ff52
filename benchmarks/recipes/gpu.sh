#!/usr/bin/env bash
# Trains fpnsum for CamVid on MobileNetV2 and on EfficientNet-Lite2, within a time on a GPU, and tests both:
#   bash FILE PACKED OUT [SECONDS]
# PACKED is what benchmarks/recipes/pack.py wrote. SECONDS are 480 by default, which leaves one of nine minutes for the
# tests.
set -euo pipefail
packed=$(realpath "$1") out=$(realpath -m "$2") seconds=${3:-480}
end=$(($(date +%s) + seconds)) runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
mkdir -p "$out"
export HF_HOME=$packed/home HF_HUB_OFFLINE=1
data=(--dataset camvid --data-path "$packed/camvid")
shared=(--train-split trainval --val-split none --batch-size 16 --lr 0.02 --quiet
    --workers "$(($(nproc) > 3 ? $(nproc) - 2 : 1))")
teachers=(--teacher espnetv2_s2p0.cityscapes fpn_aspp_mobilenetv2_tv_edgeailite.camvid --photos "$packed/photos"
    --soft-labels "$runs/soft")
streets=(--img-resize 480 640 --rand-crop 320 416 --decoder-lr 10)
camvid=(--img-resize 600 800 --rand-crop 384 512)

# Trains for as many epochs as a number of seconds allows, by the speed of a run of two epochs.
train() {
    local name=$1 budget=$2 begin
    shift 2
    begin=$(date +%s)
    python3 -m edgeseg train "${data[@]}" "${shared[@]}" "$@" --epochs 2 -o "$runs/trial_$name"
    epochs=$(python3 - "$runs/trial_$name/metrics.jsonl" $((budget - $(date +%s) + begin)) <<'PYTHON'
import json
import sys

last = json.loads(open(sys.argv[1]).readlines()[-1])
print(max(2, int(float(sys.argv[2]) / (1.1 * last["seconds"]))))
PYTHON
    )
    echo "$name: $epochs epochs"
    python3 -m edgeseg train "${data[@]}" "${shared[@]}" "$@" --epochs "$epochs" -o "$runs/$name"
    cp "$runs/$name/metrics.jsonl" "$out/$name.jsonl"
}

# The first starts from its shipped weights, and the second from ImageNet.
part=$((seconds / 8))
train mobilenetv2 $((3 * part)) --model fpnsum_mobilenetv2.camvid "${camvid[@]}"
lite2=(--model fpnsum_tf_efficientnet_lite2)
train lite2_streets $((2 * part)) "${lite2[@]}" --encoder-weights "$packed/lite2.safetensors" "${teachers[@]}" "${streets[@]}"
train lite2 $((end - $(date +%s))) "${lite2[@]}" --pretrained "$runs/lite2_streets/last.safetensors" "${camvid[@]}"

for name in mobilenetv2 lite2; do
    python3 "$(dirname "$0")/ship.py" "$runs/$name/last.safetensors" "$out/$name.safetensors"
    python3 -m edgeseg evaluate "${data[@]}" --split test --checkpoint "$out/$name.safetensors" | tee "$out/$name.txt"
done
