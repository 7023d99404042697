#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CPU time of baton-proxy per request of two legs, beside nginx as a plain proxy of one leg.
case "${1:-}" in
-h | --help)
    cat <<'EOF'
usage: proxy/bench_proxy.sh [PROXY [SECONDS [CONNECTIONS]]]

CPU time of baton-proxy (PROXY: build/release/bin/baton-proxy) per request of two legs, beside nginx
as a plain proxy of one leg, on this machine; each for SECONDS [5] with CONNECTIONS [64]. Engines are
an nginx that answers with constant JSON, so that only the proxies differ. Needs nginx and wrk.
Prints a table; the CPU column counts, requests/s depend on who else runs.
EOF
    exit 0
    ;;
esac
set -euo pipefail
proxy=${1:-build/release/bin/baton-proxy} seconds=${2:-5} connections=${3:-64}
dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
prefill=$(free_port) decode=$(free_port) plain=$(free_port)

cat > "$dir/engines.conf" <<END
daemon off; worker_processes 1; pid $dir/engines.pid; error_log $dir/engines.log;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; client_max_body_size 64m; default_type application/json;
    server { listen 127.0.0.1:$prefill; location / { return 200 '{"id":"cmpl-P","object":"text_completion","created":5,"model":"m","choices":[{"index":0,"text":"A","logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1},"kv_transfer_params":{"first_tok":42}}'; } }
    server { listen 127.0.0.1:$decode; location / { return 200 '{"id":"cmpl-D","object":"text_completion","created":9,"model":"m","choices":[{"index":0,"text":"BC","logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":4,"total_tokens":6,"completion_tokens":2}}'; } }
}
END
cat > "$dir/plain.conf" <<END
daemon off; worker_processes 1; pid $dir/plain.pid; error_log $dir/plain.log;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; client_max_body_size 64m; client_body_buffer_size 1m;
    upstream engine { server 127.0.0.1:$decode; keepalive 256; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:$plain; location / { proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
END
nginx -e "$dir/engines.err" -c "$dir/engines.conf" & pids+=($!)
nginx -e "$dir/plain.err" -c "$dir/plain.conf" & pids+=($!)
mkfifo "$dir/ready"
start_proxy() { # extra flags; sets url and proxy_pid
    "$proxy" --port 0 --proxy-port 0 --threads 1 --log-level error --prefill "127.0.0.1:$prefill" \
        --decode "127.0.0.1:$decode" "$@" > "$dir/ready" & proxy_pid=$!
    pids+=("$proxy_pid")
    read -r line < "$dir/ready"
    url=http://$(sed 's/.*http=\([^ ]*\).*/\1/' <<< "$line")
}

# Body of about $1 bytes: token ids, as the engines of a hand-off get them.
post() {
    python3 - "$1" "$dir/post.lua" <<'END'
import sys
n = int(sys.argv[1])
ids = ",".join(str(1000 + i % 9000) for i in range(max(1, n // 5)))
body = '{"model":"m","prompt":[%s],"max_tokens":9,"temperature":0}' % ids
open(sys.argv[2], "w").write("wrk.method='POST' wrk.headers['Content-Type']='application/json' wrk.body='%s'" % body)
END
}
cpu_ticks() { # of a process and its children
    local all=0 pid
    for pid in $1 $(pgrep -P "$1" || true); do
        all=$((all + $(awk '{print $14 + $15}' "/proc/$pid/stat")))
    done
    echo "$all"
}
measure() { # name url pid
    local before after requests out
    wrk -t1 -c"$connections" -d1 -s "$dir/post.lua" "$2" > /dev/null # warm up
    before=$(cpu_ticks "$3")
    out=$(wrk -t1 -c"$connections" -d"$seconds" -s "$dir/post.lua" --latency "$2")
    after=$(cpu_ticks "$3")
    requests=$(awk '/requests in/ {print $1}' <<< "$out")
    if grep -q "Non-2xx" <<< "$out"; then echo "$1: $(grep Non-2xx <<< "$out")"; fi
    awk -v name="$1" -v n="$requests" -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" \
        -v p50="$(awk '$1 == "50%" {print $2}' <<< "$out")" -v rps="$(awk '$1 == "Requests/sec:" {print $2}' <<< "$out")" \
        'BEGIN {printf "%-44s %10.0f %10s %12.1f\n", name, rps, p50, t / hz * 1e6 / n}'
}

printf "%-44s %10s %10s %12s\n" "path ($connections connections)" "req/s" p50 "CPU us/req"
for bytes in 100 34000; do
    post "$bytes"
    measure "nginx, one leg, $bytes B" "http://127.0.0.1:$plain/v1/completions" "${pids[1]}"
    start_proxy
    measure "baton-proxy, two legs, merged, $bytes B" "$url/v1/completions" "$proxy_pid"
    kill -TERM "$proxy_pid"
    start_proxy --mode decode-first
    measure "baton-proxy, two legs, relayed, $bytes B" "$url/v1/completions" "$proxy_pid"
    kill -TERM "$proxy_pid"
done

# Waiting costs nothing: requests parked for a notice that never comes.
start_proxy --decode "127.0.0.1:$decode,init=1,alloc=2" --notices 1 --kv-wait-ms 60000
for i in $(seq 64); do
    curl -s -o /dev/null -d '{"prompt":[1,2,3],"max_tokens":9}' "$url/v1/completions" & pids+=($!)
done
until [ "$(curl -s "$url/metrics" | awk '$1 == "baton_proxy_inflight" {print $2}')" -ge 32 ]; do :; done
before=$(cpu_ticks "$proxy_pid")
sleep "$seconds"
after=$(cpu_ticks "$proxy_pid")
awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v s="$seconds" \
    'BEGIN {printf "parked requests waiting for KV: %.2f %% of a core\n", 100 * t / hz / s}'
