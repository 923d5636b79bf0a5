#!/usr/bin/env bash
# Serves a model on this machine's GPUs and on its CPUs and compares. For a person with a GPU:
#
#   tests/device/gpu_check.sh MODEL.gguf [LLAMA_BATCHED_BENCH]
#
# Ends with a status other than 0 where no layer is on a GPU or the two give different answers.
set -euo pipefail

model=$1
batched_bench=${2:-}
port=${PORT:-3900}
url=http://127.0.0.1:$port
logs=$(mktemp -d)
server=

stop() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" || true
        server=
    fi
}
trap stop EXIT

start() { # a name, then options
    local name=$1
    shift
    tgi-llama --model-gguf "$model" --hostname 127.0.0.1 --port "$port" --max-batch-size 8 "$@" \
        >"$logs/$name.log" 2>&1 &
    server=$!
    until curl -sf "$url/health" >/dev/null; do
        kill -0 "$server" || { cat "$logs/$name.log"; exit 1; }
        sleep 1
    done
    grep -E "n-gpu-layers|memory needed|layers are on GPUs|WARN|warn" "$logs/$name.log" || true
}

answer() {
    curl -sf "$url/generate" -H 'content-type: application/json' -d '{"inputs":
        "The history of computing began", "parameters": {"max_new_tokens": 32, "do_sample": false}}'
}

fact() { # a field of /info
    curl -sf "$url/info" | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"
}

tgi-llama inspect "$model" --max-batch-size 8 --n-gpu-layers auto

echo "--- on GPUs"
start gpu --n-gpu-layers auto
for name in backend n_gpu_layers kv_device; do echo "$name: $(fact $name)"; done
layers=$(fact n_gpu_layers)
on_gpu=$(answer)
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-compute-apps=pid,gpu_uuid,used_memory --format=csv
fi
tgi-llama bench "$url" --clients 1,8 --words 128 --tokens "${TOKENS:-128}" --plain
stop

if [[ -n $batched_bench ]]; then
    echo "--- llama-batched-bench with as many layers"
    "$batched_bench" -m "$model" -ngl "$layers" -c 16384 -b 2048 -ub 512 -npp 128 -ntg 128 -npl 1,8
fi

echo "--- on CPUs"
start cpu --n-gpu-layers 0
on_cpu=$(answer)
stop

echo "GPU: $on_gpu"
echo "CPU: $on_cpu"
[[ $layers -gt 0 ]] || { echo "no layer is on a GPU"; exit 1; }
[[ $on_gpu == "$on_cpu" ]] || { echo "the answers differ (rounding may do that)"; exit 1; }
echo "ok; the logs are in $logs"
