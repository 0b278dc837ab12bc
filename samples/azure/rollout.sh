# shellcheck shell=bash
# Blue/green rollout: a new deployment beside the current one, as Azure describes it in
# https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints.
# Sourced by deploy-online.sh. `started`: whether there is anything to roll back.
started="" moved="" mirrored=""

# check_rollout: refuses invalid values of MIRROR, STEPS and WAIT.
check_rollout() {
  local before=0 percent
  mirror=${MIRROR:-10} wait=${WAIT:-60} steps=${STEPS:-10 50 100}
  [[ $mirror =~ ^[0-9]+$ ]] && [ "$mirror" -le 50 ] || refuse "MIRROR=$mirror: 0 to 50 percent"
  [[ $wait =~ ^[0-9]+$ ]] || refuse "WAIT=$wait: seconds between the steps"
  for percent in $steps; do
    [[ $percent =~ ^[0-9]+$ ]] && [ "$percent" -gt "$before" ] && [ "$percent" -le 100 ] \
      || refuse "STEPS=$steps: growing percentages, the last of them 100"
    before=$percent
  done
  [ "$before" = 100 ] || refuse "STEPS=$steps: growing percentages, the last of them 100"
}

# live_of: sets $live, the deployments with live traffic, and $shares: NAME=PERCENT of each.
live_of() {
  local traffic names percents i
  traffic=$(az ml online-endpoint show --name "$endpoint" \
    --query "[keys(traffic || \`{}\`), values(traffic || \`{}\`)]" --output tsv)
  { IFS=$'\t' read -r -a names && IFS=$'\t' read -r -a percents; } <<< "$traffic" || true
  live=() shares=""
  for i in "${!names[@]}"; do
    [ "${percents[i]}" != 0 ] || continue
    live+=("${names[i]}")
    shares+="${shares:+ }${names[i]}=${percents[i]}"
  done
}

# choose: sets $old, the current deployment (if any), and $new, the name of the new one.
choose() {
  local listed
  live_of
  [ ${#live[@]} -lt 2 ] || refuse "$endpoint shares its traffic ($shares): a rollout is under way," \
    "or was broken off. Give all of it to one: az ml online-endpoint update --name $endpoint --traffic '${live[0]}=100 ${live[1]}=0'"
  old=${live[0]:-}
  if [ "$old" = blue ]; then new=green; else new=blue; fi
  listed=$(deployments online-deployment)
  maker_of_new=$(awk -F '\t' -v name="$new" '$1 == name { print $2 }' <<< "$listed")
  maker_of_old=$(awk -F '\t' -v name="$old" '$1 == name { print $2 }' <<< "$listed")
  [ -z "$maker_of_new" ] || [ "$maker_of_new" = "$made_by" ] \
    || refuse "$endpoint has a deployment $new that these scripts did not make: it is left alone"
  if [ -n "$old" ]; then
    same_dimension
    same_machines
  fi
}

# same_machines: asks before it changes a size or a number of machines that the user has not set.
same_machines() {
  local machines size_before count
  machines=$(az ml online-deployment show --name "$old" --endpoint-name "$endpoint" \
    --query "[[instance_type, instance_count]]" --output tsv)
  IFS=$'\t' read -r size_before count <<< "$machines"
  if [ -z "$asked_size" ] && [ "$size_before" != None ] && [ "${size_before,,}" != "${size,,}" ]; then
    agreed "$old runs on $size_before, $new would on $size (SKU). Replace it?" || exit 1
  fi
  if [ -z "${INSTANCES:-}" ] && [[ $count =~ ^[0-9]+$ ]] && [ "$count" -gt 1 ]; then
    agreed "$old has $count machines, $new would have 1 (INSTANCES). Replace it?" || exit 1
  fi
}

# same_dimension: asks before vectors change their length: clients may have stored the old ones.
same_dimension() {
  local before
  before=$(az ml online-deployment show --name "$old" --endpoint-name "$endpoint" \
    --query tags.dimension --output tsv)
  if [[ $before =~ ^[0-9]+$ ]] && [ "$before" != "$dimension" ]; then
    agreed "$old answers vectors of $before numbers, $new would of $dimension. Replace it?" || exit 1
  fi
}

# smoke [option …]: sends sample requests, and checks that each row has vectors of the model's dimension.
smoke() {
  local body
  for body in samples/requests/both.json samples/requests/labels.json; do
    az ml online-endpoint invoke --name "$endpoint" --request-file "$body" "$@" > "$scratch/answer"
    score azure smoke "$body" "$scratch/answer" --dimension "$dimension"
    echo "$body: $(head -c 200 "$scratch/answer")…"
  done
}

# set_traffic OPTION …: sets --traffic or --mirror-traffic.
set_traffic() {
  az ml online-endpoint update --name "$endpoint" "$@" > /dev/null
}

# roll_out FILE: creates $new without live traffic, tests it, and moves the traffic to it in steps.
roll_out() {
  local action=create percent
  [ -z "$maker_of_new" ] || action=update  # kept at 0 % by KEEP=1
  started=yes
  az ml online-deployment "$action" --name "$new" --endpoint-name "$endpoint" --file "$1"
  smoke --deployment-name "$new"
  moved=yes
  if [ -n "$old" ]; then
    shift_traffic
  else
    set_traffic --traffic "$new=100"
  fi
  smoke
  started=""
}

shift_traffic() {
  local percent
  if [ "$mirror" != 0 ]; then
    mirrored=yes
    set_traffic --mirror-traffic "$new=$mirror"
    echo "$new gets a copy of $mirror % of the requests for $wait s; $old answers them all"
    sleep "$wait"
    smoke --deployment-name "$new"
    set_traffic --mirror-traffic "$new=0"
    mirrored=""
  fi
  for percent in $steps; do
    set_traffic --traffic "$old=$((100 - percent)) $new=$percent"
    echo "$new answers $percent % of the requests"
    [ "$percent" = 100 ] || sleep "$wait"
    smoke --deployment-name "$new"
  done
}

# roll_back: moves the traffic back and deletes the new deployment, which must have no live traffic for
# that. Tries each step, even if one before it failed.
roll_back() {
  [ -n "$started" ] || return 0
  local status=0 left=() container
  local traffic="az ml online-endpoint update --name $endpoint --traffic '${old:+$old=100 }$new=0'"
  local mirror="az ml online-endpoint update --name $endpoint --mirror-traffic '$new=0'"
  local delete="az ml online-deployment delete --name $new --endpoint-name $endpoint"
  (exists online-deployment "$new" --endpoint-name "$endpoint") || status=$?
  [ "$status" != 1 ] || return 0  # 1: it was never created; 2: unknown
  printf '%s\n' "$new failed: putting everything back. If that breaks off, by hand:" \
    "  $traffic" "  $delete" >&2
  if [ -n "$mirrored" ]; then set_traffic --mirror-traffic "$new=0" || left+=("$mirror"); fi
  if [ -n "$moved" ]; then set_traffic --traffic "${old:+$old=100 }$new=0" || left+=("$traffic"); fi
  for container in inference-server storage-initializer; do
    echo "-- $container of $new" >&2
    az ml online-deployment get-logs --name "$new" --endpoint-name "$endpoint" \
      --container "$container" --lines 200 >&2 || true
  done
  if [ "${KEEP:-}" = 1 ]; then
    echo "KEEP=1: $new is kept, to be looked at. It is billed until: $delete" >&2
  else
    $delete --yes >&2 || left+=("$delete")
  fi
  if [ ${#left[@]} = 0 ]; then
    echo "Everything is put back." >&2
  else
    printf '%s\n' "Not everything is put back: $new is billed, and may have requests. Still to be done:" \
      "${left[@]/#/  }" >&2
  fi
}

# retire: deletes the previous deployment, or says why it is kept.
retire() {
  [ -n "$old" ] || return 0
  local delete="az ml online-deployment delete --name $old --endpoint-name $endpoint"
  if [ "${KEEP:-}" = 1 ]; then
    echo "KEEP=1: $old is kept with no traffic. Both are billed, until: $delete"
  elif [ "$maker_of_old" != "$made_by" ]; then
    echo "$old was not made by this script and is kept with no traffic. It is billed, until: $delete"
  else
    az ml online-deployment delete --name "$old" --endpoint-name "$endpoint" --yes
    echo "$old is deleted; $new is billed."
  fi
}

# release_online: moves live traffic away from $ours, to the only one of $others that has some, or to
# none. Called before `clean` deletes $ours.
release_online() {
  local name zero="" staying=()
  live_of
  for name in "${live[@]}"; do
    if [[ " ${ours[*]} " = *" $name "* ]]; then zero+=" $name=0"; else staying+=("$name"); fi
  done
  [ -n "$zero" ] || return 0
  case ${#staying[@]} in
    0) agreed "Requests to $endpoint are answered by $shares. Without that it answers none. Delete?" \
      || exit 1 ;;
    1) agreed "The traffic of $endpoint is $shares. Shall ${staying[0]} get all of it?" || exit 1 ;;
    *) refuse "the traffic of $endpoint is $shares: decide first who gets it" ;;
  esac
  set_traffic --traffic "${staying[*]:+${staying[0]}=100}$zero"
}
