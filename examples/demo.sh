#!/usr/bin/env bash
# make demo: the story of one incident, told by kubectl on a real control plane. Each step is checked: when
# the state is not what the story says, the demo stops with an error.
#
#   DEMO_DIR   the folder of another cluster than that of make up
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/controlplane/lib.sh
. "$here/../tests/controlplane/lib.sh"
dir=${DEMO_DIR:-$root/target/up}
cd "$root"
use_cluster "$dir"

# Output and commands go to one place, in order.
exec 2>&1
chapter() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# show COMMAND...: prints the command as one would type it, then runs it.
show() {
  local word line='$'
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then line+=" $word"; else line+=" '$word'"; fi
  done
  printf '\n%s%s%s\n' "$green" "$line" "$plain"
  "$@"
}

wrong() {
  say
  kubectl get incidents,mitigations,deployments,pods --namespace shop || true
  kubectl get incident checkout-errors --namespace shop -o yaml || true
  fail "the story should go on with: $1. Log of the operator: $dir/operator.log"
}

# expect TEXT COMMAND...: the command is true within 20 s, or the story is wrong.
expect() {
  local text=$1
  shift
  wait_until 20 "$@" || wrong "$text"
}

# is WANTED RESOURCE PATH: whether the field has the value; an empty WANTED means that it is empty or gone.
is() { [ "$(kubectl get "$2" --namespace shop -o "jsonpath=$3" 2>/dev/null)" = "$1" ]; }
# has TEXT RESOURCE PATH: whether the field contains the text.
has() { [[ "$(kubectl get "$2" --namespace shop -o "jsonpath=$3" 2>/dev/null)" == *"$1"* ]]; }
no_pods() { [ -z "$(kubectl get pods --namespace shop -l "app=$1" -o name)" ]; }
marks() {
  kubectl get deployment/importer configmap/flags --namespace shop -o json --show-managed-fields |
    grep -c 'incident-operator' || true
}
no_marks() { [ "$(marks)" = 0 ]; }

started=$SECONDS
now() { printf '%(%H:%M:%S)T' -1; }

# An earlier telling may have left its incident behind.
kubectl delete incidents,mitigations,timelineentries,postmortems --all --namespace shop --timeout=60s >/dev/null ||
  fail "the incident of an earlier demo does not go away: make down, then make demo"
kubectl apply -f examples/shop.yaml -f examples/people.yaml >/dev/null
expect "the shop is up" is 3 deployment/importer '{.status.readyReplicas}'
expect "the shop is up" is 2 deployment/checkout '{.status.readyReplicas}'

chapter "A shop: the checkout serves customers, an importer loads prices, a flag switches the new pricing on."
show kubectl get deployments,pods -n shop
show kubectl get configmap flags -n shop -o 'jsonpath={.data}'
printf '\n'
is on configmap/flags '{.data.new-pricing}' || wrong "the new pricing is on"

chapter "The checkout fails. Erin may declare incidents, and may not scale the importer: so she may not through us either."
# New roles are in force within a second or so.
may() { [ "$(kubectl auth can-i "$2" "$3" --namespace shop --as "$1" "${@:4}" 2>/dev/null)" = yes ]; }
expect "Erin may ask for mitigations" may erin create mitigations
expect "Alice may scale" may alice patch deployments.apps --subresource scale
if show kubectl create -f examples/mitigation-scale.yaml --as erin; then wrong "Erin is refused"; fi

chapter "Alice may scale it. She declares an incident, and with it says what to stop."
show cat examples/checkout-errors.yaml
show kubectl apply -f examples/checkout-errors.yaml --as alice
show kubectl wait --for=condition=Mitigated incident/checkout-errors -n shop --timeout=30s ||
  wrong "the incident is mitigated"

chapter "The importer is at zero and its pods are gone; the flag is off; the checkout was not touched."
show kubectl get incidents,mitigations,deployments,pods -n shop
show kubectl get configmap flags -n shop -o 'jsonpath={.data}'
printf '\n'
is 0 deployment/importer '{.spec.replicas}' || wrong "the importer is at zero"
no_pods importer || wrong "the importer's pods are gone"
is off configmap/flags '{.data.new-pricing}' || wrong "the new pricing is off"
is off configmap/flags '{.data.gift-cards}' || wrong "no other flag was touched"
is 2 deployment/checkout '{.status.readyReplicas}' || wrong "the checkout was not touched"

chapter "Alice named herself commander, and the API server vouches for her name: so she has command. Bob adds what he found."
show kubectl create -f examples/timeline-note.yaml --as bob
expect "the note is in the timeline" has "all database connections" incident/checkout-errors '{.status.timeline}'
expect "the incident is acknowledged" is True incident/checkout-errors \
  '{.status.conditions[?(@.type=="Acknowledged")].status}'
show kubectl get incident checkout-errors -n shop -o wide
show kubectl describe incident checkout-errors -n shop

chapter "The import is rescheduled and the error rate is back to normal. Alice declares the resolution."
show kubectl patch incident checkout-errors -n shop --as alice --type=merge -p \
  '{"spec":{"resolution":{"summary":"importer rate fixed"},"exitCriteria":[{"description":"error rate below 0.1 % for 30 minutes","state":"Done"}]}}'
show kubectl wait --for=condition=Resolved incident/checkout-errors -n shop --timeout=30s ||
  wrong "the incident is resolved"

chapter "Everything is as it was, and nothing of the operator is left on the workloads."
expect "the importer is back" is 3 deployment/importer '{.status.readyReplicas}'
show kubectl get incidents,mitigations,deployments,pods -n shop
show kubectl get configmap flags -n shop -o 'jsonpath={.data}'
printf '\n'
is on configmap/flags '{.data.new-pricing}' || wrong "the new pricing is on again"
is 2 deployment/checkout '{.status.readyReplicas}' || wrong "the checkout was not touched"
expect "no annotation, label or field manager of the operator is left" no_marks

chapter "What happened, as Events for the moment, and as the postmortem's draft for good."
show kubectl events -n shop --for incident/checkout-errors
expect "a postmortem is drafted" has checkout-errors postmortems '{.items[*].spec.incidentRef.name}'
postmortem=$(kubectl get incident checkout-errors -n shop -o 'jsonpath={.status.postmortemRef.name}')
[ -n "$postmortem" ] || wrong "the incident names its postmortem"
show kubectl get postmortems -n shop
expect "the postmortem is exported" has "Checkout returns 500" "configmap/$postmortem-postmortem" '{.data.postmortem\.md}'
show kubectl get configmap "$postmortem-postmortem" -n shop -o 'jsonpath={.data.postmortem\.md}'

printf '\n%s# Told at %s in %s s. Go on yourself:%s\n\n' "$bold" "$(now)" "$((SECONDS - started))" "$plain"
printf '  export KUBECONFIG=%s/kubeconfig PATH=%s/bin:$PATH\n\n' "$dir" "$dir"
