#!/bin/sh
# One pod of a training on several nodes. The first runs Prefect's command, which is given as arguments; the others run the same
# stages beside it, in a clone of their own. STAGES and BRANCH are the job's variables.
set -eu
: "${BRANCH:?the job variable branch must name the branch that has the settings}"
if [ "$JOB_COMPLETION_INDEX" = 0 ]; then
    exec "$@"
fi
git clone --quiet --branch "$BRANCH" "$DETECTLINE_REPOSITORY" /work/checkout
cd /work/checkout
# shellcheck disable=SC2086  # several stages are several words
exec python -m flows.exchange $STAGES --branch "$BRANCH"
