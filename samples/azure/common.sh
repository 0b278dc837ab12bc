# shellcheck shell=bash
# Functions of the scripts in this folder. Sourced from the clone's root; needs bash 4.4 or later.
#
# What these scripts create has the tag `made_by`; they delete nothing else without a question.
made_by=clip-endpoints
shopt -s inherit_errexit  # a failing command within $(…) ends it, too

# refuse SENTENCE: prints it and exits with 2.
refuse() {
  echo "$*" >&2
  exit 2
}

# agreed QUESTION: whether the user answers yes. YES=1 and --yes do; without a terminal it is no.
agreed() {
  [ "${YES:-}" = 1 ] && return
  if [ ! -t 0 ]; then
    echo "$1 Nobody is here to ask: YES=1 or --yes says yes." >&2
    return 1
  fi
  read -r -p "$1 [y/N] " answer
  [[ $answer = [yY]* ]]
}

# begin: creates the temporary folder $scratch, which is deleted when the script ends.
begin() {
  scratch=$(mktemp -d)
  trap 'exit 130' INT TERM
  trap ended EXIT
}

ended() {
  status=$?
  trap - EXIT
  if [ "$status" != 0 ] && declare -F roll_back > /dev/null; then roll_back; fi
  rm -rf "$scratch"
  exit "$status"
}

# choose_size [KIND]: sets $size, and what follows from it: $kind (cpu or gpu) and $cluster.
choose_size() {
  local target
  target=$(score azure target ${1:+"$1"} ${SKU:+--sku "$SKU"} ${TIER:+--tier "$TIER"})
  read -r size kind cluster <<< "$target"
}

# endpoint_named STEM: a name that is unique in the region: STEM and a number made from the workspace's id.
endpoint_named() {
  if [ -n "${ENDPOINT:-}" ]; then
    echo "$ENDPOINT"
    return
  fi
  local id
  id=$(az ml workspace show --query id --output tsv) || return
  [ -n "$id" ] || refuse "az ml workspace show prints no id: see az configure --list-defaults, or set ENDPOINT=NAME"
  echo "$1-$(printf %s "$id" | gzip -c | tail -c8 | od -An -N4 -tu4 | tr -d ' ')"  # its CRC-32
}

# find_model KIND: writes the model to deploy, as `az ml model show` prints it, to
# $scratch/registered.json. MODEL=azureml:… exists already; MODEL=FOLDER is registered as `clip`;
# without MODEL it is the latest `clip`, or the embedded model if there is none. A model that does not
# fit is not registered.
find_model() {
  case ${MODEL:-} in
    azureml:*) show_model "$MODEL" > "$scratch/registered.json" ;;
    "")
      if ! exists model clip ${REGISTRY:+--registry-name "$REGISTRY"}; then
        register "$1" . components/model.yml
        return
      fi
      latest=azureml:clip@latest
      if [ -n "${REGISTRY:-}" ]; then latest=azureml://registries/$REGISTRY/models/clip/labels/latest; fi
      show_model "$latest" > "$scratch/registered.json"
      ;;
    *)
      score azure render model --model "$MODEL" --path "$MODEL" > "$scratch/model.yml"
      register "$1" "$MODEL" "$scratch/model.yml"
      ;;
  esac
}

# show_model REFERENCE: azureml:NAME:VERSION, azureml:NAME@LABEL, or a reference into a registry.
show_model() {
  local name=${1#azureml:} kind
  model_registry=""
  case $1 in
    azureml://registries/*/models/*/versions/* | azureml://registries/*/models/*/labels/*)
      IFS=/ read -r _ _ _ model_registry _ name kind version <<< "$1"
      set -- --name "$name" "--${kind%s}" "$version"
      ;;
    azureml:*@*) set -- --name "${name%@*}" --label "${name#*@}" ;;
    azureml:*:*) set -- --name "${name%:*}" --version "${name#*:}" ;;
    *) refuse "MODEL=$1: azureml:NAME:VERSION, azureml://registries/…/models/NAME/versions/VERSION, or a folder" ;;
  esac
  az ml model show "$@" ${model_registry:+--registry-name "$model_registry"}
}

# register KIND FOLDER FILE: registers a new version of `clip`, if a deployment of KIND fits.
register() {
  model_registry=${REGISTRY:-}
  score azure render "$1" --sku "$size" --model "$2" > /dev/null
  az ml model create --file "$3" ${REGISTRY:+--registry-name "$REGISTRY"} \
    > "$scratch/registered.json"
}

# write_deployment KIND [option …]: writes $file, with the model's settings, and sets $dimension, the
# length of its vectors. A model that was registered without its architecture is downloaded to read it.
write_deployment() {
  local name version architecture
  file="$scratch/deployment.yml"
  architecture=$(score azure registered "$scratch/registered.json")
  read -r name version architecture <<< "$architecture"
  if [ "$architecture" != described ]; then
    local mlmodel
    if [ ! -d "$scratch/model" ]; then
      echo "$name:$version was not registered with its architecture: it is downloaded to read that" >&2
      az ml model download --name "$name" --version "$version" --download-path "$scratch/model" \
        ${model_registry:+--registry-name "$model_registry"} > /dev/null
    fi
    mlmodel=$(find "$scratch/model" -name MLmodel | head -n 1)
    [ -n "$mlmodel" ] || refuse "$name:$version holds no MLmodel: what settings it needs cannot be known"
    set -- "$@" --model "$(dirname "$mlmodel")"
  fi
  score azure render "$@" --sku "$size" --described "$scratch/registered.json" --code "$PWD" \
    ${INSTANCES:+--instances "$INSTANCES"} > "$file"
  dimension=$(sed -n 's/^  dimension: "\([0-9]*\)".*/\1/p' "$file")
}

# make_environment NAME: registers a version of clip-NAME, or takes ENVIRONMENT=azureml:… as it is; sets
# $environment.
make_environment() {
  local version
  if [ -n "${ENVIRONMENT:-}" ]; then
    environment=$ENVIRONMENT
    return
  fi
  version=$(az ml environment create --file "environment/$1.yml" \
    ${REGISTRY:+--registry-name "$REGISTRY"} --query version --output tsv)
  if [ -n "${REGISTRY:-}" ]; then
    environment="azureml://registries/$REGISTRY/environments/clip-$1/versions/$version"
  else
    environment="azureml:clip-$1:$version"
  fi
}

# exists GROUP NAME [option …]: whether `az ml GROUP list` has it. Where that fails, the script ends with
# Azure's message. `show` is no substitute: it fails both for what does not exist and for what cannot be
# asked, with different messages for endpoints, computes and models.
exists() {
  local names
  names=$(az ml "$1" list "${@:3}" --query "[].name" --output tsv) \
    || refuse "Azure does not say whether the $1 $2 is there"
  grep --quiet --line-regexp --fixed-strings --ignore-case -e "$2" <<< "$names"
}

# make_cluster NODES: creates $cluster, with 0 to NODES machines of $size, if there is none.
make_cluster() {
  exists compute "$cluster" || az ml compute create --name "$cluster" --type amlcompute \
    --size "$size" --min-instances 0 --max-instances "$1" ${TIER:+--tier "$TIER"}
}

# deployments GROUP: name and tag `made_by` of each deployment of $endpoint, a line each.
deployments() {
  az ml "$1" list --endpoint-name "$endpoint" --query "[].[name, tags.made_by]" --output tsv
}

# clean KIND [all]: deletes what these scripts created at $endpoint, and the endpoint if nothing else is
# on it; with `all` everything on it, whoever created it, after a question.
clean() {
  local listed maker name by ours=() others=()
  exists "$1-endpoint" "$endpoint" || refuse "there is no $1 endpoint $endpoint"
  maker=$(az ml "$1-endpoint" show --name "$endpoint" --query tags.made_by --output tsv)
  listed=$(deployments "$1-deployment")
  while IFS=$'\t' read -r name by; do
    if [ "$by" = "$made_by" ]; then ours+=("$name"); elif [ -n "$name" ]; then others+=("$name"); fi
  done <<< "$listed"
  if [ "${2:-}" = all ]; then
    agreed "Delete $endpoint with all on it (${ours[*]} ${others[*]}), whoever made it?" || exit 1
    others=() maker=$made_by
  fi
  if [ ${#others[@]} = 0 ] && [ "$maker" = "$made_by" ]; then
    az ml "$1-endpoint" delete --name "$endpoint" --yes
    echo "Deleted: $endpoint${ours[*]:+, with ${ours[*]}}."
    return
  fi
  [ ${#ours[@]} = 0 ] || release_$1
  for name in "${ours[@]}"; do
    az ml "$1-deployment" delete --name "$name" --endpoint-name "$endpoint" --yes
    echo "Deleted: $name of $endpoint."
  done
  echo "$endpoint stays${others[*]:+, with ${others[*]}}: not made by these scripts. To delete it too: clean all"
}
