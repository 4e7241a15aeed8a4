#!/bin/sh
# Runs manyhands as a worker: on RunPod as its environment says, elsewhere for the queue of MANYHANDS_QUEUE.
# What is given to this script goes to `manyhands serve` after it.
#
#   MANYHANDS_MODEL    model folders, or names of folders below a models folder, separated by commas [demo]
#   MANYHANDS_MODELS   the models folder; RunPod's network volume if that has one
#   MANYHANDS_THREADS  threads to compute with [all]
#   MANYHANDS_DRAIN    seconds that a running picture has when the pod is to end [8: RunPod and Docker kill after 10]
#
# manyhands itself reads MANYHANDS_QUEUE, MANYHANDS_TOKEN, MANYHANDS_ROOM and MANYHANDS_MEMORY_BUDGET.
set -eu

if [ -z "${MANYHANDS_MODELS:-}" ] && [ -d /runpod-volume/models ]; then
    export MANYHANDS_MODELS=/runpod-volume/models
fi
if [ -n "${MANYHANDS_THREADS:-}" ]; then
    set -- --threads "$MANYHANDS_THREADS" "$@"
fi
exec manyhands serve --supervise --models "${MANYHANDS_MODEL:-demo}" --drain "${MANYHANDS_DRAIN:-8}" "$@"
