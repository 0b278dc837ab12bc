# What deploy-online.sh and deploy-batch.sh share. Sourced, from the clone's root.

# Names of endpoints are a region's, not a workspace's: ours ends in a number made of the workspace's.
endpoint_named() {
  if [ -n "${ENDPOINT:-}" ]; then
    echo "$ENDPOINT"
    return
  fi
  id=$(az ml workspace show --query id --output tsv)
  echo "$1-$(printf %s "$id" | gzip -c | tail -c8 | od -An -N4 -tu4 | tr -d ' ')"  # its CRC-32
}

# The model `clip` of the workspace: the folder $MODEL, or the embedded one where there is none yet.
register_model() {
  if [ -n "${MODEL:-}" ]; then
    score azure render model --model "$MODEL" --path "$(realpath "$MODEL")" \
      --output "$scratch/model.yml"
    az ml model create --file "$scratch/model.yml"
  elif ! az ml model show --name clip --label latest > /dev/null 2>&1; then
    az ml model create --file components/model.yml
  fi
}

# The file of a deployment of KIND (online, batch) on DEVICE: the one checked in, or, with SKU=… or
# MODEL=…, one for that size and model. Ends the script where the model does not fit.
deployment_file() {
  if [ -z "${SKU:-}${MODEL:-}" ]; then
    echo "components/$1/deployment-$2.yml"
    return
  fi
  score azure render "$1" --sku "$size" --model "${MODEL:-.}" --name "$2" --code "$PWD" \
    --output "$scratch/deployment.yml" && echo "$scratch/deployment.yml"
}

# The size of machine for DEVICE: SKU=…, or a small one.
size_of() {
  case $1 in cpu) echo "${SKU:-Standard_D4as_v4}" ;; gpu) echo "${SKU:-Standard_NC4as_T4_v3}" ;; esac
}

# create_or_update KIND NAME [option …]: of `az ml KIND`.
create_or_update() {
  kind=$1 name=$2
  shift 2
  action=create
  if az ml "$kind" show --name "$name" ${of_endpoint:+--endpoint-name "$of_endpoint"} \
    > /dev/null 2>&1; then action=update; fi
  az ml "$kind" "$action" --name "$name" ${of_endpoint:+--endpoint-name "$of_endpoint"} "$@"
}
