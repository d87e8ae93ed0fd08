#!/usr/bin/env bash
# Measures every GPU row of docs/benchmarks.md in one call of at most 8 minutes; for whoever has a GPU:
#     bash scripts/benchmark_gpu.sh                 # prints the tables; experiment/benchmark_gpu.md keeps them
#     DEVICE=cpu METHODS=cti bash scripts/benchmark_gpu.sh    # a try without a GPU: the same commands, tiny
# The share of the peak FLOP/s is of the GPU that is found; GPU=h100, or GPU=GB,TFLOPS, names another. A part that fails
# or takes too long is named in the table, and the others go on; the exit code is 1 then.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
seconds=${SECONDS_IN_ALL:-480}
python=${PYTHON:-python}
report=${REPORT:-experiment/benchmark_gpu.md}
methods=${METHODS:-cti pcss dig toco crt}
part_seconds=${PART_SECONDS:-60}
precisions="fp32 tf32 bf16"
infer_precisions="fp32 bf16"
turns=(--turns 5 --warmup 1)
batch=32
sizes=()
[ "$device" = cuda ] || { # the least of everything
    precisions=fp32
    infer_precisions=fp32
    turns=(--turns 1 --warmup 0)
    batch=2
    sizes=(--size 96 128)
}
"$python" -c "import sys, torch; sys.exit(0 if '$device' == 'cpu' or torch.cuda.is_available() else 1)" || {
    echo "error: this PyTorch sees no CUDA device. DEVICE=cpu tries the commands without one." >&2
    exit 1
}
gpu=${GPU:-$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -n 1 | grep -oiE "3090|4090|a100|h100" || true)}
peak=(${gpu:+--gpu "${gpu,,}"})
mkdir -p "$(dirname "$report")"
end=$(($(date +%s) + seconds))
failed=0

part() { # a title, then a command, which gets a minute, or the seconds that are left
    local title=$1 left=$((end - $(date +%s)))
    shift
    echo "## $title" >> "$report"
    printf '\n    %s\n\n' "$*" >> "$report"
    if [ "$left" -lt 5 ]; then
        echo "not measured: the $seconds seconds are over" >> "$report"
        failed=1
    elif ! timeout "$((left < part_seconds ? left : part_seconds))" "$@" >> "$report" 2> "$report.err"; then
        echo "failed or took too long: $(tail -n 1 "$report.err")" >> "$report"
        failed=1
    fi
    echo >> "$report"
}

{
    echo "# GPU figures"
    echo
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "device: $device"
    "$python" -c "import torch; print('torch', torch.__version__)"
    echo
} > "$report"
for method in $methods; do # images/s, ratio to plain passes; peak memory
    for precision in $precisions; do
        part "$method, train step, $precision" "$python" scripts/benchmark.py train --method "$method" --batch "$batch" \
            --device "$device" --precision "$precision" "${turns[@]}" "${peak[@]}"
    done
done
part "crf, lattice" "$python" scripts/benchmark_crf.py lattice
for walk in psa irn; do
    part "$walk, random walk" "$python" "methods/$walk/benchmark.py" --device "$device" "${sizes[@]}"
done
for method in $methods; do
    for precision in $infer_precisions; do
        part "$method, inference, $precision" "$python" scripts/benchmark.py infer --method "$method" \
            --device "$device" --precision "$precision" "${sizes[@]}" "${turns[@]}" "${peak[@]}"
    done
done
[ "$device" = cpu ] || part "cti, train step, bf16, compiled" "$python" scripts/benchmark.py train --method cti \
    --batch "$batch" --device cuda --precision bf16 --compile --turns 3 --warmup 2 "${peak[@]}"
rm -f "$report.err"
cat "$report"
exit "$failed"
