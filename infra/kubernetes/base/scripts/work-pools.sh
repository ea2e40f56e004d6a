#!/bin/sh
# Make Prefect's work pools, or bring them to what templates/ says.
set -eu
for pool in cpu gpu nodes; do
    prefect work-pool create "$pool" --type kubernetes --base-job-template "/templates/$pool.json" --overwrite
done
# Trainings on several nodes meet under one name, `training`: one at a time.
prefect work-pool set-concurrency-limit nodes 1
