{{/* What the admission policies share. Expressions are CEL; the templates only put names and tables into them. */}}

{{/* Where the admission policies hold. */}}
{{- define "incident-operator.admission.scope" -}}
{{- with .Values.watchNamespace -}}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end }}

{{/* Whether the rules of one concern are installed. Takes (dict "root" $ "concern" "locks"); prints "true" or nothing. */}}
{{- define "incident-operator.admission.has" -}}
{{- if and .root.Values.admission.enabled (dig .concern "enabled" true .root.Values.admission) }}true{{ end }}
{{- end }}

{{/* Whether the API server stamps, in signature.yaml, who asked for a change; prints "true" or "false". Only then the operator may trust the stamp. */}}
{{- define "incident-operator.admission.signs" -}}
{{- $wanted := include "incident-operator.admission.has" (dict "root" . "concern" "signatures") }}
{{- if and $wanted (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
true
{{- else -}}
false
{{- end }}
{{- end }}

{{/* Name of the operator as the API server knows it. */}}
{{- define "incident-operator.admission.operator" -}}
{{ printf "system:serviceaccount:%s:%s" .Release.Namespace (include "incident-operator.serviceAccountName" .) }}
{{- end }}

{{/*
Names that no rule may hold up, as a list in CEL: the operator, and the controllers that clean up after
a deletion that was allowed. Whoever sets those to work has passed the rules already. Where the
controller manager runs without ServiceAccounts of its own, it has one name for all controllers.
*/}}
{{- define "incident-operator.admission.cleaners" -}}
{{ list
  (include "incident-operator.admission.operator" .)
  "system:serviceaccount:kube-system:generic-garbage-collector"
  "system:serviceaccount:kube-system:namespace-controller"
  "system:kube-controller-manager" | toJson }}
{{- end }}

{{/* A match condition that lets break-glass groups pass, where some are named. */}}
{{- define "incident-operator.admission.breakGlass" -}}
{{- with .Values.admission.breakGlassGroups -}}
- name: not-by-a-break-glass-group
  expression: >-
    !request.userInfo.?groups.orValue([]).exists(group, group in {{ toJson . }})
{{- end }}
{{- end }}

{{/* The project's kinds by their resource names, as JSON {"resources": […]}: the ones that the chart's definitions list. Takes (dict "root" $ "scope" "Namespaced"), or "*" for all. */}}
{{- define "incident-operator.admission.kinds" -}}
{{- $resources := list }}
{{- range $file, $_ := .root.Files.Glob "files/crds/*.yaml" }}
{{- $crd := include "incident-operator.generated" (dict "root" $.root "file" $file) | fromJson }}
{{- if or (eq $.scope "*") (eq $.scope $crd.spec.scope) }}
{{- $resources = append $resources $crd.spec.names.plural }}
{{- end }}
{{- end }}
{{- if not $resources }}
{{- fail "files/crds holds no CustomResourceDefinition: run `make crds`" }}
{{- end }}
{{- dict "resources" ($resources | sortAlpha) | toJson }}
{{- end }}

{{/* Metadata of a policy and of its binding. Takes (dict "root" $ "name" "signature"). */}}
{{- define "incident-operator.admission.metadata" -}}
name: {{ include "incident-operator.fullname" .root }}-{{ .name }}
labels:
  {{- include "incident-operator.labels" .root | nindent 2 }}
{{- end }}

{{/* The binding that puts a validating policy in force. Takes (dict "root" $ "name" "signature"). */}}
{{- define "incident-operator.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  {{- include "incident-operator.admission.metadata" . | nindent 2 }}
spec:
  policyName: {{ include "incident-operator.fullname" .root }}-{{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* The groups of the requester as one string, a JSON array in the order that the API server gives. An annotation holds nothing else. */}}
{{- define "incident-operator.admission.groups" -}}
"[" + request.userInfo.?groups.orValue([]).map(group, strings.quote(group)).join(",") + "]"
{{- end }}

{{/*
A map or list of an object's metadata as a CEL expression; empty where it is absent, or null as server-side
apply leaves it. Takes (dict "of" "object" "field" "labels" "empty" "{}").
*/}}
{{- define "incident-operator.admission.of" -}}
{{- $field := printf "%s.metadata.%s" .of .field -}}
(has({{ $field }}) && dyn({{ $field }}) != dyn(null) ? {{ $field }} : {{ .empty }})
{{- end }}

{{/*
Who changed one part of a spec last, as variables: every entry of an incident's mitigations has a stamp of its own, and
so have its roles, severity, resolution, impact and checklist, and the state of a postmortem. Who corrects the title is
then taken for the author of nothing else, whatever happened before the operator looked.

variables.stamp is the stamp of this request, stampsNew the annotations that must bear it, stampsKept those that stay
as they are stored. No other stamp may be there. Uses variables.stated, stored and groups.
*/}}
{{- define "incident-operator.admission.stamps" -}}
- name: new
  expression: dyn(object)
- name: old
  expression: "oldObject == null ? dyn({}) : dyn(oldObject)"
- name: stampsStored
  expression: "oldObject == null ? {} : variables.stored"
- name: stamp
  expression: >-
    "{\"user\":" + strings.quote(request.userInfo.username) + ",\"groups\":" + variables.groups +
    (request.resource.resource == "postmortems" && variables.old.?spec.?owner.hasValue()
    ? ",\"owner\":" + strings.quote(variables.old.spec.owner) : "") + "}"
- name: entries
  expression: >-
    request.resource.resource == "incidents" ? variables.new.?spec.?mitigations.orValue([]) : dyn([])
- name: entriesBefore
  expression: >-
    request.resource.resource == "incidents" ? variables.old.?spec.?mitigations.orValue([]) : dyn([])
- name: entriesKept
  expression: >-
    variables.entries.filter(m, variables.entriesBefore.exists(old, old == m)).map(m, "entry.incident-operator.dev/" + string(m.name))
# Of a creation, and of an update.
- name: partsAtFirst
  expression: >-
    {{ include "incident-operator.admission.partsWhere" "variables.new.?spec.?%[1]s.hasValue()" }}
- name: partsNew
  expression: >-
    {{ include "incident-operator.admission.partsWhere" "variables.new.?spec.?%[1]s != variables.old.?spec.?%[1]s" }}
- name: stampsNew
  expression: >-
    variables.partsNew + variables.entries.map(m, "entry.incident-operator.dev/" + string(m.name)).filter(key, !(key in variables.entriesKept))
- name: stampsKept
  expression: >-
    variables.entriesKept.filter(key, key in variables.stampsStored) +
    {{ include "incident-operator.admission.parts" . }}.filter(key, key in variables.stampsStored && !(key in variables.partsNew))
- name: stampsStated
  expression: >-
    variables.stated.map(key, key).filter(key, key.startsWith("entry.incident-operator.dev/") || key in {{ include "incident-operator.admission.parts" . }})
{{- end }}

{{/* The parts of a spec with stamps of their own: by kind the annotation, and the fields that it is about. */}}
{{- define "incident-operator.admission.stamped" -}}
incidents:
  checklist-actor: [checklist]
  impact-actor: [impact]
  resolution-actor: [resolution, exitCriteria, outcome, duplicateOf]
  roles-actor: [roles]
  severity-actor: [severity, severityReason]
postmortems:
  state-actor: [state]
{{- end }}

{{/* The annotations of those parts of which a condition holds for one of their fields, as a list in CEL. Takes the condition, with %[1]s for the field. */}}
{{- define "incident-operator.admission.partsWhere" -}}
{{- $condition := . }}
{{- range $kind, $parts := include "incident-operator.admission.stamped" . | fromYaml -}}
request.resource.resource == {{ $kind | quote }} ? (
{{- $lists := list }}
{{- range $key, $fields := $parts }}
{{- $holds := list }}
{{- range $fields }}
{{- $holds = append $holds (printf $condition .) }}
{{- end }}
{{- $lists = append $lists (printf "(%s ? [%q] : [])" (join " || " $holds) (printf "incident-operator.dev/%s" $key)) }}
{{- end }}
{{- join " + " $lists }}) : {{ end -}} []
{{- end }}

{{/* The annotations with stamps of parts, as a list in CEL. */}}
{{- define "incident-operator.admission.parts" -}}
{{- $keys := list }}
{{- range $parts := include "incident-operator.admission.stamped" . | fromYaml }}
{{- range $key, $_ := $parts }}
{{- $keys = append $keys (printf "incident-operator.dev/%s" $key) }}
{{- end }}
{{- end }}
{{- $keys | toJson }}
{{- end }}
