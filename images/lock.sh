#!/usr/bin/env bash
# Writes anew the versions and hashes that the images are built of (needs uv).
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet "$@"; }

# Of the Kubernetes client, which is for kubeconfigs alone; it and what it brings would be a fifth of the image.
outside=(kubernetes durationpy oauthlib python-dateutil requests-oauthlib websocket-client)
extras=(operator gcs gke s3 azure)
{
  echo '# What the image of the operator and the agents holds, without the Kubernetes client: in a pod, a token is all it takes.'
  echo '# images/lock.sh writes this file anew.'
  lock pyproject.toml "${extras[@]/#/--extra=}" "${outside[@]/#/--no-emit-package=}" | sed '/^# The following packages/,$d'
} > images/requirements.txt

echo 'hatchling>=1.27' | lock - > images/build-requirements.txt

{
  echo '# The embedded Triton and its backend, as repo_tools/gravswell/serving/triton/install.py names them.'
  echo 'nvidia-pytriton==0.7.0' | lock - --no-deps
  printf 'numpy==1.26.4\nonnxruntime==1.31.1\n' | lock -
} > images/server-requirements.txt
