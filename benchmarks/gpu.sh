#!/usr/bin/env bash
# What a GPU is asked, in one go: bash benchmarks/gpu.sh DARTS_CHECKOUT DRNAS_CHECKOUT CIFAR10 OUT_FOLDER [PYTHON]
# The first lines hold the laws: graphs, kernels and both executions on the device. Then steps and epochs beside the
# official code in the same precision, with and without graphs, masks launched and replayed, and at last a whole search
# by DrNAS at the paper's settings.
set -euo pipefail
darts=$(realpath "$1") drnas=$(realpath "$2") cifar10=$(realpath "$3") out=$(realpath -m "$4") python=${5:-.venv/bin/python}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv > "$out/gpu.csv"
"$python" benchmarks/gpu_laws.py | tee "$out/laws.txt"
for precision in float32 tf32; do
    "$python" benchmarks/supernet_step.py --case masked --device cuda --batch 64 --precision "$precision" \
        | tail -1 | tee -a "$out/steps.jsonl"
    for graphs in "" --graphs; do
        for case in darts nasbench201; do
            checkout=$([ "$case" = darts ] && echo "$darts" || echo "$drnas")
            "$python" benchmarks/supernet_step.py --case "$case" --official "$checkout" --device cuda --batch 64 \
                --precision "$precision" $graphs | tail -1 | tee -a "$out/steps.jsonl"
        done
        for method in darts drnas; do
            checkout=$([ "$method" = darts ] && echo "$darts" || echo "$drnas")
            for loaders in "" --ready; do
                "$python" benchmarks/search_epoch.py --method "$method" --official "$checkout" --device cuda \
                    --images 2048 --batch 64 --precision "$precision" $graphs $loaders | tail -1 | tee -a "$out/epochs.jsonl"
            done
        done
    done
done
time "$python" -m gapless.commands.entry search nb201_drnas --data "$cifar10" --device cuda --graphs --out "$out/search"
