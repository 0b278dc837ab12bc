#!/usr/bin/env bash
# Creates what the jobs of samples/azure/jobs need in a new workspace:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/prepare.sh            # for all of them, or: prepare.sh embed spark package
# Prints the command of each job at the end. Environments are registered in any case; an existing
# cluster or model `clip` is left unchanged. Without jobs the cluster has no machines.
# SKU=Standard_… is another machine size, which has its own cluster. Needs bash 4.4, the
# Azure CLI with its ml extension and this project's command `score`. The same in Python:
# samples/azure/prepare.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
. samples/azure/common.sh

[ $# -gt 0 ] || set -- embed package spark
for job; do
  case $job in embed | package | spark) ;; *) refuse "embed, package or spark, not $job" ;; esac
done

TIER=""
choose_size ""
on=
[ -z "${SKU:-}" ] || on=" settings.default_compute=azureml:$cluster"

make_model() {
  exists model clip || az ml model create --file components/model.yml
}

register_environment() { az ml environment create --file "environment/$1.yml"; }

commands=()
for job; do
  command="az ml job create --file samples/azure/jobs/$job.yml --set"
  case $job in
    embed)
      register_environment cpu-batch
      make_cluster 4
      make_model
      commands+=("$command inputs.table.path=\"\$PWD/my-urls.csv\"$on")
      ;;
    package)
      register_environment package
      make_cluster 4
      commands+=("$command inputs.checkpoint=laion-vit-b-16$on")
      ;;
    spark)
      register_environment spark
      make_model
      model=$(az ml model show --name clip --label latest --query path --output tsv)
      commands+=("$command inputs.table.path=azureml://… inputs.model.path=$model")
      ;;
  esac
done
printf '%s\n' "Ready. To run them:" "${commands[@]}"
