# What deploy-online.sh and deploy-batch.sh share. Sourced, from the clone's root.

# Names of endpoints are a region's, not a workspace's: ours ends in a number made of the workspace's.
endpoint_named() {
  if [ -n "${ENDPOINT:-}" ]; then
    echo "$ENDPOINT"
    return
  fi
  id=$(az ml workspace show --query id --output tsv)
  echo "$1-$(printf %s "$id" | cksum | cut -d' ' -f1)"
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

# create_or_update KIND NAME [option …]: of `az ml KIND`.
create_or_update() {
  kind=$1 name=$2
  shift 2
  action=create
  if az ml "$kind" show --name "$name" ${of_endpoint:+--endpoint-name "$of_endpoint"} \
    > /dev/null 2>&1; then action=update; fi
  az ml "$kind" "$action" --name "$name" ${of_endpoint:+--endpoint-name "$of_endpoint"} "$@"
}
