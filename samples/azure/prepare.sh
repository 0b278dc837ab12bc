#!/usr/bin/env bash
# What the jobs of samples/azure/jobs need, and a fresh workspace lacks:
#   az login && az configure --defaults group=… workspace=…
#   samples/azure/prepare.sh            # for all of them, or: prepare.sh embed spark package
# Ends with the command of each job. Environments are registered as they are here; a cluster or a
# model `clip` that is there stays as it is. The cluster has no machine while no job runs.
# SKU=Standard_… is another size of machine, which has a cluster of its own. Needs bash 4.4, the
# Azure CLI with its ml extension and this project's command `score`. The twin in Python is
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
