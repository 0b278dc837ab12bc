#!/usr/bin/env bash
# A real-time endpoint, from nothing to an answer:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/deploy-online.sh            # CPU; with `gpu` after it, a GPU
#   samples/azure/deploy-online.sh clean      # takes it down again
# MODEL=dist/clip deploys a package of your own, SKU=Standard_… on another size (`score azure plan`),
# ENDPOINT=… names the endpoint. What is there already is updated. Needs the Azure CLI with its ml
# extension (az extension add --name ml), and with MODEL or SKU this project's command `score`
# (README: `pip install -e '.[azure]'`). The twin in Python is samples/azure/online.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
. samples/azure/common.sh

device=${1:-cpu}
case $device in cpu | gpu | clean) ;; *) echo "cpu, gpu or clean, not $device" >&2; exit 2 ;; esac
endpoint=$(endpoint_named clip)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
size=$(size_of "$device")

if [ "$device" = clean ]; then
  az ml online-endpoint delete --name "$endpoint" --yes
  exit
fi

file=$(deployment_file online "$device")

az ml environment create --file "environment/$device.yml"
register_model
create_or_update online-endpoint "$endpoint" --file components/online/endpoint.yml
of_endpoint=$endpoint create_or_update online-deployment "$device" --file "$file"
az ml online-endpoint update --name "$endpoint" --traffic "$device=100"

for body in samples/requests/both.json samples/requests/labels.json; do
  answer=$(az ml online-endpoint invoke --name "$endpoint" --request-file "$body")
  echo "$body: ${answer:0:300}"
done

url=$(az ml online-endpoint show --name "$endpoint" --query scoring_uri --output tsv)
echo "From anywhere, with the key of: az ml online-endpoint get-credentials --name $endpoint"
echo "  curl $url -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d @samples/requests/both.json"
