# Stands before the commands of docs/operators.md: what an operator does with a second terminal and Ctrl-C is done by a function.
set -euo pipefail

manyhands-relay() {
    local word
    for word in "$@"; do
        case $word in token | ledger | job-types) command manyhands-relay "$@"; return ;; esac
    done
    stop
    mkfifo said
    command manyhands-relay "$@" > said 2>> relay.log &
    relay=$!
    exec 3< said
    rm said
    # The first line is written when it listens; there is none if it cannot start.
    read -r -u 3 word
    printf '%s\n' "$word"
}

stop() {
    if [ -n "${relay:-}" ]; then
        kill -TERM "$relay"
        wait "$relay"
    fi
}

