#!/usr/bin/env bash
# A batch endpoint, from nothing to files of vectors:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/deploy-batch.sh my-urls.csv   # CPU; with `gpu` after it, GPUs
#   samples/azure/deploy-batch.sh clean         # takes the endpoint down; the cluster scales to none
# MODEL=dist/clip deploys a package of your own, SKU=Standard_… on another size (`score azure plan`),
# ENDPOINT=… names the endpoint. What is there already is updated. Needs the Azure CLI with its ml
# extension (az extension add --name ml) and this project's command `score` (README). The twin in Python is samples/azure/batch.py.
set -euo pipefail
table=${1:?a CSV with an image or a text column, or: clean}
if [ "$table" != clean ]; then table=$(realpath --canonicalize-existing "$table"); fi
cd "$(dirname "$0")/../.."
. samples/azure/common.sh

device=${2:-cpu}
case $device in cpu | gpu) ;; *) echo "cpu or gpu, not $device" >&2; exit 2 ;; esac
size=$(size_of "$device")
endpoint=$(endpoint_named clip-batch)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ "$table" = clean ]; then
  az ml batch-endpoint delete --name "$endpoint" --yes
  exit
fi

file=$(deployment_file batch "$device")
score split "$table" --rows 1000 --output "$scratch/shards"

az ml compute create --name "clip-$device" --type amlcompute --size "$size" \
  --min-instances 0 --max-instances 4
az ml environment create --file "environment/$device-batch.yml"
register_model
create_or_update batch-endpoint "$endpoint" --file components/batch/endpoint.yml
of_endpoint=$endpoint create_or_update batch-deployment "$device" --file "$file"
az ml batch-endpoint update --name "$endpoint" --set "defaults.deployment_name=$device"

job=$(az ml batch-endpoint invoke --name "$endpoint" --deployment-name "$device" \
  --input "$scratch/shards" --input-type uri_folder --query name --output tsv)
az ml job stream --name "$job"
az ml job download --name "$job" --output-name score --download-path "out/azure/$job"

score merge "$scratch/shards" "out/azure/$job/named-outputs/score" \
  --output "out/azure/$job/vectors.parquet" --report "out/azure/$job/report.json"
