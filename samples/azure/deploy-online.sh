#!/usr/bin/env bash
# Deploys a real-time endpoint, and tests it:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/deploy-online.sh            # on CPUs; on GPUs with `gpu` after it
#   samples/azure/deploy-online.sh clean      # deletes what it created; `clean all`: everything there
# Run again, it creates a new deployment beside the current one (blue, green), tests it, and moves the
# traffic in steps; if anything fails, it rolls back. Environment variables:
#   MODEL        a package's folder, or azureml:clip:3, azureml://registries/…; else the latest clip
#   SKU          size of machine (score azure plan), which also determines cpu or gpu
#   INSTANCES    machines (1)            ENDPOINT   its name
#   MIRROR STEPS WAIT   per cent of requests to mirror first (10), steps of the traffic in per cent
#                (10 50 100), seconds between (60)    KEEP=1   deletes neither the old deployment nor a failed one
#   AUTH IDENTITY PRIVATE=1             of a new endpoint: key, aml_token or aad_token; the ARM id of
#                a user-assigned identity; closed to the public network
#   SECRETS      SCORE_…=https://VAULT.vault.azure.net/secrets/NAME/VERSION, for each
#   REGISTRY ENVIRONMENT                a registry for model and environment; azureml:… as it is
#   YES=1        answers questions (also --yes)
# Needs bash 4.4, the Azure CLI with its ml extension (az extension add --name ml) and this project's
# command `score` (README: `pip install -e '.[azure]'`). The same in Python: samples/azure/online.py.
set -euo pipefail
case ${MODEL:-} in "" | azureml:*) ;; *) MODEL=$(realpath --canonicalize-existing "$MODEL") ;; esac
cd "$(dirname "$0")/../.."
. samples/azure/common.sh
. samples/azure/rollout.sh

words=()
for word in "$@"; do if [ "$word" = --yes ]; then YES=1; else words+=("$word"); fi; done
case ${words[*]:-} in "" | cpu | gpu | clean | "clean all") ;; *) refuse "cpu, gpu or clean, not ${words[*]}" ;; esac
[ -z "${TIER:-}" ] || refuse "TIER is for batch clusters: real-time deployments have no such machines"
check_rollout

begin
if [ "${words[0]:-}" = clean ]; then
  endpoint=$(endpoint_named clip)
  clean online "${words[1]:-}"
  exit
fi

asked_size=${SKU:-${words[0]:-}}
choose_size "${words[0]:-}"
secrets=()
for secret in ${SECRETS:-}; do secrets+=(--secret "$secret"); done
[ "${PRIVATE:-}" = 1 ] || PRIVATE=""
score azure render endpoint ${AUTH:+--auth "$AUTH"} ${IDENTITY:+--identity "$IDENTITY"} \
  ${PRIVATE:+--private} > "$scratch/endpoint.yml"
endpoint=$(endpoint_named clip)
find_model online
write_deployment online "${secrets[@]}"  # ends the script where the model does not fit

# An endpoint that is there keeps its ways to get in: changing them would shut clients out unasked.
if exists online-endpoint "$endpoint"; then
  is=$(az ml online-endpoint show --name "$endpoint" --query \
    "[[auth_mode, public_network_access, identity.user_assigned_identities[0].resource_id]]" --output tsv)
  IFS=$'\t' read -r auth access identity <<< "$is"
  [ "${auth,,}" = "${AUTH:-${auth,,}}" ] || refuse "$endpoint has the auth mode $auth. To change it:" \
    "az ml online-endpoint update --name $endpoint --set auth_mode=$AUTH"
  [ -z "${PRIVATE:-}" ] || [ "${access,,}" = disabled ] || refuse "$endpoint is open to the public" \
    "network. To close it: az ml online-endpoint update --name $endpoint --set public_network_access=disabled"
  [ -z "${IDENTITY:-}" ] || [ "${identity,,}" = "${IDENTITY,,}" ] || refuse \
    "$endpoint has another identity ($identity): use another endpoint, ENDPOINT=…"
else
  az ml online-endpoint create --name "$endpoint" --file "$scratch/endpoint.yml"
fi
choose
make_environment "$kind"
write_deployment online --environment "$environment" "${secrets[@]}"
roll_out "$file"
retire

url=$(az ml online-endpoint show --name "$endpoint" --query scoring_uri --output tsv)
echo "$endpoint is billed for its machines (${INSTANCES:-1} × $size) until: samples/azure/deploy-online.sh clean"
echo "From anywhere, with the key or token of: az ml online-endpoint get-credentials --name $endpoint"
echo "  curl $url -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d @samples/requests/both.json"
