# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Starts, watches and stops a fleet: x prefill and y decode engines and the proxy, each a process of
# its own; to be sourced after common.sh. Ports are free ones that the processes name themselves in
# the line they print when they are ready, so several fleets can run side by side.
#
# The caller sets fleet_bin, the folder of the programs.
#   fleet_open               makes $fleet_dir, for logs; set a trap on fleet_close first
#   fleet_start NAME CMD...  starts one; its stderr goes to $fleet_dir/NAME.log
#   fleet_await NAME         waits until it is ready; $fleet_ready is the line it printed
#   fleet_watch              returns when a process has died, and says whose
#   fleet_supervise N        starts what has died again, on the ports it had and after a pause that
#                            doubles; returns when one has died more than N times in a minute
#   fleet_close              stops all; removes the logs unless fleet_keep_logs=yes
fleet_names=()
fleet_pids=()
declare -A fleet_commands=() fleet_lines=() fleet_outs=() # of each name: what starts it, the line it
                                                          # printed, where that comes from
fleet_keep_logs=no
fleet_ready=
fleet_dir=
fleet_bin=${fleet_bin:-}
# How long a process may take to be ready and, asked to stop, to be gone.
fleet_start_s=120
fleet_stop_s=20

# fleet_threads N: how many threads each of N engines may use here.
fleet_threads() {
    local n=$(($(nproc) / $1))
    echo $((n > 0 ? n : 1))
}

fleet_open() { fleet_dir=$(mktemp -d -t baton.XXXXXX); }

fleet_start() {
    local name=$1
    shift
    fleet_commands[$name]=$(printf '%q ' "$@")
    fleet_run "$name" "$@"
    fleet_names+=("$name")
    fleet_pids+=("$fleet_pid")
}

# fleet_run NAME CMD...: as fleet_start, but adds nothing to the fleet; sets fleet_pid.
fleet_run() {
    local name=$1
    shift
    # A process whose script was killed must not stay behind.
    if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig TERM "$@"; fi
    rm -f "$fleet_dir/$name.out"
    mkfifo "$fleet_dir/$name.out"
    set -m # a group of its own: Ctrl-C is for this script, which stops everything in order
    "$@" >"$fleet_dir/$name.out" 2>>"$fleet_dir/$name.log" </dev/null &
    set +m
    fleet_pid=$!
}

# Says why `name` is not there, with the end of its log.
fleet_blame() {
    local name=$1
    echo "$(basename "$0"): $name $2; its log: $fleet_dir/$name.log" >&2
    tail -n 5 "$fleet_dir/$name.log" | sed 's/^/    /' >&2
    fleet_keep_logs=yes
}

fleet_await() {
    local name=$1 out
    # Stays open: the process must be able to write on.
    exec {out}<"$fleet_dir/$name.out"
    if ! read -r -t "$fleet_start_s" -u "$out" fleet_ready; then
        fleet_blame "$name" "did not get ready"
        exec {out}<&-
        return 1
    fi
    fleet_outs[$name]=$out
    fleet_lines[$name]=$fleet_ready
}

# fleet_field KEY: value of KEY= in the line of the last fleet_await.
fleet_field() {
    local word
    for word in $fleet_ready; do
        if [ "${word%%=*}" = "$1" ]; then
            echo "${word#*=}"
            return
        fi
    done
    echo "$(basename "$0"): wanted $1= in the ready line, found: $fleet_ready" >&2
    return 1
}

# fleet_start_engine NAME ROLE OPTION...: one engine, with the weights of seed 1 unless said otherwise.
fleet_start_engine() {
    local name=$1 role=$2
    shift 2
    fleet_start "$name" "$fleet_bin/baton-engine" --role "$role" --drain-ms 3s "$@"
}

# fleet_start_proxy URL-OPTION...
fleet_start_proxy() {
    fleet_start proxy "$fleet_bin/baton-proxy" --host 127.0.0.1 --proxy-host 127.0.0.1 \
        --proxy-port 0 --drain-ms 3000 "$@"
}

fleet_watch() {
    local status=0 pid i
    { wait -n -p pid "${fleet_pids[@]}" || status=$?; } 2>/dev/null
    for i in "${!fleet_pids[@]}"; do
        if [ "${fleet_pids[$i]}" = "$pid" ]; then
            fleet_blame "${fleet_names[$i]}" "(pid $pid) has died, exit status $status"
        fi
    done
    return 1
}

# fleet_ports NAME: the options that give it the ports it had, in fleet_same_ports.
fleet_ports() {
    fleet_ready=${fleet_lines[$1]}
    fleet_same_ports=()
    case $1 in
    proxy)
        local http notices
        http=$(fleet_field http) notices=$(fleet_field notices)
        fleet_same_ports=(--port "${http##*:}" --proxy-port "${notices##*:}")
        ;;
    *) fleet_same_ports=(--port "$(fleet_field port)") ;;
    esac
    if [[ $fleet_ready == *" init_ports="* ]]; then
        fleet_same_ports+=(--set "init_port=$(fleet_field init_ports)" --set "alloc_port=$(
            fleet_field alloc_ports)")
    fi
}

# fleet_restart I: starts the Ith process again, which has died, and waits until it is ready.
fleet_restart() {
    local i=$1 name=${fleet_names[$1]} out=${fleet_outs[${fleet_names[$1]}]} command
    fleet_ports "$name"
    eval "command=(${fleet_commands[$name]})"
    exec {out}<&-
    fleet_run "$name" "${command[@]}" "${fleet_same_ports[@]}"
    fleet_pids[i]=$fleet_pid
    fleet_await "$name" || return 1
    echo "$(basename "$0"): $name is back, pid $fleet_pid"
}

fleet_supervise() {
    local most=$1 status pid i name pause
    declare -A deaths=() # of a name: when, in seconds
    while :; do
        status=0
        { wait -n -p pid "${fleet_pids[@]}" || status=$?; } 2>/dev/null
        for i in "${!fleet_pids[@]}"; do
            if [ "${fleet_pids[$i]}" = "$pid" ]; then break; fi
        done
        name=${fleet_names[$i]}
        fleet_blame "$name" "(pid $pid) has died, exit status $status"
        deaths[$name]=$(fleet_within_a_minute "${deaths[$name]:-} $SECONDS")
        set -- ${deaths[$name]}
        if [ $# -gt "$most" ]; then
            echo "$(basename "$0"): $name has died $# times in a minute: giving up" >&2
            return 1
        fi
        # Half a second, doubling to 8 s.
        pause=$((1 << ($# < 5 ? $# - 1 : 4)))
        echo "$(basename "$0"): $name is started again in $((pause / 2)).$((pause % 2 * 5)) s"
        # Not sleep, which would not let a signal through.
        read -r -t "$((pause / 2)).$((pause % 2 * 5))" <> <(:) || true
        fleet_restart "$i" || true # one that does not get ready dies, or is found dead by wait
    done
}

# Those of the times that are less than a minute ago.
fleet_within_a_minute() {
    local at recent=
    # shellcheck disable=SC2048  # a list of numbers
    for at in $*; do
        if [ $((SECONDS - at)) -lt 60 ]; then recent="$recent $at"; fi
    done
    echo "$recent"
}

# The proxy first, then engines in the order of their start; what does not go is killed.
fleet_stop() {
    local i pid deadline=$((SECONDS + fleet_stop_s))
    for ((i = ${#fleet_pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${fleet_pids[$i]}" 2>/dev/null || true
    done
    for i in "${!fleet_pids[@]}"; do
        pid=${fleet_pids[$i]}
        while kill -0 "$pid" 2>/dev/null; do
            if [ $SECONDS -ge $deadline ]; then
                fleet_blame "${fleet_names[$i]}" "(pid $pid) did not stop and is killed"
                kill -KILL "$pid" 2>/dev/null || true
            fi
            sleep 0.05
        done
        wait "$pid" 2>/dev/null || true
    done
    fleet_pids=()
    fleet_names=()
}

fleet_close() {
    if [ -z "$fleet_dir" ]; then return; fi
    fleet_stop
    if [ $fleet_keep_logs = yes ]; then
        echo "$(basename "$0"): logs are in $fleet_dir" >&2
        find "$fleet_dir" -type p -delete
    else
        rm -rf "$fleet_dir"
    fi
    fleet_dir=
}

# fleet_launch X Y TP PORT: X prefill and Y decode engines of TP ranks and the proxy on PORT (0: any),
# with fleet_options for all engines, fleet_prefill_options, fleet_decode_options,
# fleet_proxy_options besides. Sets fleet_url, fleet_decode_urls and fleet_table.
fleet_options=()
fleet_prefill_options=()
fleet_decode_options=()
fleet_proxy_options=()
fleet_launch() {
    local x=$1 y=$2 tp=$3 port=$4 i urls=()
    fleet_table=()
    fleet_decode_urls=()
    for ((i = 1; i <= x; i++)); do
        fleet_start_engine "prefill-$i" prefill --tp "$tp" "${fleet_options[@]}" \
            "${fleet_prefill_options[@]}"
    done
    for ((i = 1; i <= y; i++)); do
        fleet_start_engine "decode-$i" decode --tp "$tp" "${fleet_options[@]}" \
            "${fleet_decode_options[@]}"
    done
    for ((i = 1; i <= x; i++)); do
        fleet_await "prefill-$i" || return 1
        urls+=(--prefill "http://127.0.0.1:$(fleet_field port)")
        fleet_row "prefill-$i" "http $(fleet_field port)"
    done
    for ((i = 1; i <= y; i++)); do
        fleet_await "decode-$i" || return 1
        local init alloc
        init=$(fleet_field init_ports) alloc=$(fleet_field alloc_ports)
        urls+=(--decode "http://127.0.0.1:$(fleet_field port),$(fleet_lists init "$init"),$(
            fleet_lists alloc "$alloc")")
        fleet_decode_urls+=("http://127.0.0.1:$(fleet_field port)")
        fleet_row "decode-$i" "http $(fleet_field port), init $init, alloc $alloc"
    done
    fleet_start_proxy --port "$port" "${urls[@]}" "${fleet_proxy_options[@]}"
    fleet_await proxy || return 1
    fleet_url=http://$(fleet_field http)
    fleet_row proxy "http ${fleet_url##*:}, notices $(fleet_field notices | sed 's/.*://')"
}

# fleet_lists init 1,2: init=1,init=2, as the proxy's --decode has it.
fleet_lists() { echo "$1=${2//,/,$1=}"; }

fleet_row() {
    local i
    for i in "${!fleet_names[@]}"; do
        if [ "${fleet_names[$i]}" = "$1" ]; then
            fleet_table+=("$1|${fleet_pids[$i]}|$2|$fleet_dir/$1.log")
        fi
    done
}

fleet_print_table() {
    printf '%s\n' 'process|pid|ports|log' "${fleet_table[@]}" |
        awk -F'|' '{ for (i = 1; i <= NF; i++) { cell[NR, i] = $i
                if (length($i) > width[i]) width[i] = length($i) } }
            END { for (r = 1; r <= NR; r++)
                printf "%-*s  %*s  %-*s  %s\n", width[1], cell[r, 1], width[2], cell[r, 2],
                    width[3], cell[r, 3], cell[r, 4] }'
}

fleet_print_curl() {
    cat <<EOF
try it:
  curl -N $fleet_url/v1/completions -H 'Content-Type: application/json' \\
    -d '{"prompt": "Once upon a time", "max_tokens": 32, "stream": true}'
EOF
}
