#!/usr/bin/env bash
# Creates an index over a container of images in Azure AI Search, with a CLIP endpoint as its
# vectorizer and skill, and asks it a question.
#
#   SERVICE=my-search ADMIN_KEY=… URI=https://my-clip.westeurope.inference.ml.azure.com/score KEY=… \
#   STORAGE='DefaultEndpointsProtocol=…' samples/azure_ai_search/create.sh
#
# URI: the endpoint's scoring URI, or another server's https://…/azure-ai-search. KEY: its key.
# SEARCH: the service's address, where it is not https://SERVICE.search.windows.net.
set -euo pipefail
cd "$(dirname "$0")"
: "${ADMIN_KEY:?the admin key of the search service}" "${URI:?the address of the CLIP endpoint}"
: "${KEY:?the key of the CLIP endpoint}" "${STORAGE:?the connection string of the images}"
export URI KEY STORAGE
SEARCH="${SEARCH:-https://${SERVICE:?the name of the search service}.search.windows.net}"
VERSION=2024-07-01

# Fills in ${URI}, ${KEY} and ${STORAGE}, as JSON strings.
filled() {
  python3 -c '
import json, os, re, sys
text = open(sys.argv[1]).read()
print(re.sub(r"\$\{(\w+)\}", lambda name: json.dumps(os.environ[name[1]])[1:-1], text))' "$1"
}

call() {
  curl --silent --show-error --fail-with-body --request "$1" "$SEARCH/$2?api-version=$VERSION" \
    --header "api-key: $ADMIN_KEY" --header 'Content-Type: application/json' --data-binary @-
  echo
}

filled datasource.json | call PUT datasources/clip-images
filled index.json | call PUT indexes/clip-images
filled skillset.json | call PUT skillsets/clip-images
filled indexer.json | call PUT indexers/clip-images
filled query.json | call POST indexes/clip-images/docs/search
