#!/bin/sh
# Writes dist/pgflow-sdk.tgz and dist/pgflow-local.tgz, under names that do not change with the version.
set -e
rm -rf dist
mkdir dist
npm pack --workspace @pgflow/sdk --workspace @pgflow/local --pack-destination dist >/dev/null
mv dist/pgflow-sdk-*.tgz dist/pgflow-sdk.tgz
mv dist/pgflow-local-*.tgz dist/pgflow-local.tgz
