#!/usr/bin/env bash
# Deploys a batch endpoint, runs a job, and downloads the vectors:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/deploy-batch.sh my-urls.csv   # on CPUs; on GPUs with `gpu` after it
#   samples/azure/deploy-batch.sh clean         # deletes what it created; `clean all`: everything there
# Existing resources are updated; a cluster is left unchanged. Environment variables:
#   MODEL        a package's folder, or azureml:clip:3, azureml://registries/…; else the latest clip
#   SKU          size of machine (score azure plan), which also determines cpu or gpu; each
#                size has its own cluster
#   INSTANCES    machines of a job (1)   NODES      the most machines of a new cluster (4)
#   TIER         low_priority: cheaper machines that Azure may take away; the job then retries
#   ENDPOINT     its name                REGISTRY ENVIRONMENT YES   as in deploy-online.sh
# Needs bash 4.4, the Azure CLI with its ml extension (az extension add --name ml) and this project's
# command `score` (README: `pip install -e '.[azure]'`). The same in Python: samples/azure/batch.py.
set -euo pipefail
case ${MODEL:-} in "" | azureml:*) ;; *) MODEL=$(realpath --canonicalize-existing "$MODEL") ;; esac
words=()
for word in "$@"; do if [ "$word" = --yes ]; then YES=1; else words+=("$word"); fi; done
table=${words[0]:?a CSV with an image or a text column, or: clean}
if [ "$table" != clean ]; then table=$(realpath --canonicalize-existing "$table"); fi
cd "$(dirname "$0")/../.."
. samples/azure/common.sh

# release_batch: if the default deployment, which runs jobs that name none, is one of $ours, makes one
# of $others the default, or none. Called before `clean` deletes $ours of an endpoint that stays.
release_batch() {
  local default successor=${others[0]:-}
  default=$(az ml batch-endpoint show --name "$endpoint" --query defaults.deployment_name --output tsv)
  [[ " ${ours[*]} " = *" $default "* ]] || return 0
  agreed "$default is the default of $endpoint. Shall ${successor:-nothing} take its place?" || exit 1
  az ml batch-endpoint update --name "$endpoint" --set "defaults.deployment_name=$successor"
}

# check_cluster: refuses more machines than an existing cluster has: others may use it, so its limit is
# not raised.
check_cluster() {
  local has
  exists compute "$cluster" || return 0
  has=$(az ml compute show --name "$cluster" --query max_instances --output tsv)
  [ "$wanted" -le "$has" ] || refuse "INSTANCES=$wanted: $cluster has $has at most. To raise" \
    "that: az ml compute update --name $cluster --max-instances $wanted"
}

begin
if [ "$table" = clean ]; then
  endpoint=$(endpoint_named clip-batch)
  clean batch "${words[1]:-}"
  echo "Clusters stay: they have no machine, and cost nothing, while no job runs."
  exit
fi

case ${words[1]:-} in "" | cpu | gpu) ;; *) refuse "cpu or gpu, not ${words[1]}" ;; esac
[[ ${INSTANCES:-1} =~ ^[1-9][0-9]*$ ]] || refuse "INSTANCES=$INSTANCES: a number of machines"
[ -z "${SECRETS:-}" ] || refuse "SECRETS: Azure puts secrets into real-time deployments alone"
[[ ${NODES:-4} =~ ^[1-9][0-9]*$ ]] || refuse "NODES=$NODES: a number of machines"
wanted=${INSTANCES:-1} most=${NODES:-4}
choose_size "${words[1]:-}"
if [ "${TIER:-}" = low_priority ] && [ "$wanted" = 1 ]; then  # how-to-use-low-priority-batch
  echo "Azure cancels a job whose every machine is taken away: set INSTANCES=2 or more" >&2
fi
endpoint=$(endpoint_named clip-batch)
tier=${TIER:+--tier=$TIER}
find_model batch
write_deployment batch ${tier:+"$tier"}
score split "$table" --rows 1000 --output "$scratch/shards"

check_cluster
make_cluster $((most > wanted ? most : wanted))
make_environment "$kind-batch"
write_deployment batch ${tier:+"$tier"} --environment "$environment"
if ! exists batch-endpoint "$endpoint"; then
  az ml batch-endpoint create --name "$endpoint" --file components/batch/endpoint.yml
fi
action=create
listed=$(deployments batch-deployment)
while IFS=$'\t' read -r name maker; do
  [ "$name" = "$kind" ] || continue
  [ "$maker" = "$made_by" ] || refuse "$endpoint has a deployment $kind that this script did not make:" \
    "use another endpoint, ENDPOINT=…"
  action=update
done <<< "$listed"
az ml batch-deployment "$action" --name "$kind" --endpoint-name "$endpoint" --file "$file"
default=$(az ml batch-endpoint show --name "$endpoint" --query defaults.deployment_name --output tsv)
if [ -z "$default" ]; then  # an existing default is kept: the job below names its deployment
  az ml batch-endpoint update --name "$endpoint" --set "defaults.deployment_name=$kind"
fi

job=$(az ml batch-endpoint invoke --name "$endpoint" --deployment-name "$kind" \
  --input "$scratch/shards" --input-type uri_folder --query name --output tsv)
az ml job stream --name "$job"
az ml job download --name "$job" --output-name score --download-path "out/azure/$job"

score merge "$scratch/shards" "out/azure/$job/named-outputs/score" \
  --output "out/azure/$job/vectors.parquet" --report "out/azure/$job/report.json"
