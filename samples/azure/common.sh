# shellcheck shell=bash
# What the scripts of this folder share. Sourced, from the clone's root; bash 4.4 or later.
#
# What these scripts make carries the tag `made_by`, and they take nothing else down unasked.
made_by=clip-endpoints
shopt -s inherit_errexit  # a command that fails within $(…) ends that, too

# refuse SENTENCE: ends the script.
refuse() {
  echo "$*" >&2
  exit 2
}

# agreed QUESTION: whether the user says yes. YES=1 and --yes say it; where nobody can be asked, no.
agreed() {
  [ "${YES:-}" = 1 ] && return
  if [ ! -t 0 ]; then
    echo "$1 Nobody is here to ask: YES=1 or --yes says yes." >&2
    return 1
  fi
  read -r -p "$1 [y/N] " answer
  [[ $answer = [yY]* ]]
}

# begin: a folder for what is written on the way, $scratch, that goes when the script ends.
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

# choose_size [KIND]: $size, and what follows from it: $kind (cpu or gpu) and $cluster.
choose_size() {
  local found
  found=$(score azure target ${1:+"$1"} ${SKU:+--sku "$SKU"} ${TIER:+--tier "$TIER"})
  read -r size kind cluster <<< "$found"
}

# Names of endpoints are a region's, not a workspace's: ours ends in a number made of the workspace's.
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

# find_model KIND: what Azure tells of the model to deploy, into $scratch/registered.json.
# MODEL=azureml:… is there already; MODEL=FOLDER is registered as `clip`; without MODEL it is the
# latest `clip`, or the embedded model where there is none. Nothing is registered that does not fit.
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

# show_model REFERENCE: azureml:NAME:VERSION, azureml:NAME@LABEL, or one of a registry.
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

# register KIND FOLDER FILE: as a new version of `clip`, where a deployment of KIND fits.
register() {
  model_registry=${REGISTRY:-}
  score azure render "$1" --sku "$size" --model "$2" > /dev/null
  az ml model create --file "$3" ${REGISTRY:+--registry-name "$REGISTRY"} \
    > "$scratch/registered.json"
}

# write_deployment KIND [option …]: $file, with the settings of the model found, and the $dimension
# of its vectors. A model that does not say what it is, is downloaded to read that from its files.
write_deployment() {
  local name version said
  file="$scratch/deployment.yml"
  said=$(score azure registered "$scratch/registered.json")
  read -r name version said <<< "$said"
  if [ "$said" != described ]; then
    if [ ! -d "$scratch/model" ]; then
      echo "$name:$version was not registered with its architecture: it is downloaded to read that" >&2
      az ml model download --name "$name" --version "$version" --download-path "$scratch/model" \
        ${model_registry:+--registry-name "$model_registry"} > /dev/null
    fi
    said=$(find "$scratch/model" -name MLmodel | head -n 1)
    [ -n "$said" ] || refuse "$name:$version holds no MLmodel: what settings it needs cannot be known"
    set -- "$@" --model "$(dirname "$said")"
  fi
  score azure render "$@" --sku "$size" --described "$scratch/registered.json" --code "$PWD" \
    ${INSTANCES:+--instances "$INSTANCES"} > "$file"
  dimension=$(sed -n 's/^  dimension: "\([0-9]*\)".*/\1/p' "$file")
}

# make_environment NAME: $environment, a version of clip-NAME; or ENVIRONMENT=azureml:…, as it is.
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

# exists GROUP NAME [option …]: whether `az ml GROUP list` has it. Where that fails the script ends with
# what Azure says. `show` would not do: what is not there and what cannot be asked both fail, and the
# texts by which they differ are not the same for endpoints, computes and models.
exists() {
  local names
  names=$(az ml "$1" list "${@:3}" --query "[].name" --output tsv) \
    || refuse "Azure does not say whether the $1 $2 is there"
  grep --quiet --line-regexp --fixed-strings --ignore-case -e "$2" <<< "$names"
}

# make_cluster NODES: $cluster, of machines of $size, 0 to NODES of them, where there is none.
make_cluster() {
  exists compute "$cluster" || az ml compute create --name "$cluster" --type amlcompute \
    --size "$size" --min-instances 0 --max-instances "$1" ${TIER:+--tier "$TIER"}
}

# deployments GROUP: name and maker of each deployment of $endpoint, a line each.
deployments() {
  az ml "$1" list --endpoint-name "$endpoint" --query "[].[name, tags.made_by]" --output tsv
}

# clean KIND: takes down what these scripts made at $endpoint, and the endpoint where nothing else
# is on it. `all` as $2 takes down everything on it, whoever made it, after a question.
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
