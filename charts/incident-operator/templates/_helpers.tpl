{{- define "incident-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* A release called like the chart gives short names; any other gives names of its own, so that two installs can live side by side. */}}
{{- define "incident-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "incident-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "incident-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "incident-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "incident-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "incident-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: incident-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "incident-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "incident-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "incident-operator.image" -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* A Service's name is a DNS label, so it is shortened before its suffix is added. */}}
{{- define "incident-operator.metricsServiceName" -}}
{{- include "incident-operator.fullname" . | trunc 55 | trimSuffix "-" }}-metrics
{{- end }}

{{- define "incident-operator.configName" -}}
{{- include "incident-operator.fullname" . | trunc 56 | trimSuffix "-" }}-config
{{- end }}

{{/* Reads a generated file of this chart as JSON. Takes (dict "root" $ "file" "files/…"). A file that is missing or broken must not become a role without rules. */}}
{{- define "incident-operator.generated" -}}
{{- $data := .root.Files.Get .file | fromYaml }}
{{- with $data.Error }}
{{- fail (printf "%s: %s" $.file .) }}
{{- end }}
{{- if not $data }}
{{- fail (printf "%s is missing or empty: run `make crds`" .file) }}
{{- end }}
{{- include "incident-operator.scalable" (dict "root" .root "file" .file "data" $data) }}
{{- toJson $data }}
{{- end }}

{{/* The rules of a generated role. Takes (dict "root" $ "file" "files/…"). */}}
{{- define "incident-operator.rules" -}}
{{- $data := include "incident-operator.generated" . | fromJson }}
{{- toYaml (required (printf "%s has no rules" .file) $data.rules) }}
{{- end }}

{{/* The enabled actions, as JSON {"actions": […]}. An unknown name in the values would otherwise leave an action on that someone meant to turn off. */}}
{{- define "incident-operator.actions" -}}
{{- $all := (include "incident-operator.generated" (dict "root" . "file" "files/actions.yaml") | fromJson).actions }}
{{- $names := list }}
{{- $enabled := list }}
{{- range $all }}
{{- $names = append $names .name }}
{{- if dig .name "enabled" true $.Values.actions }}
{{- $enabled = append $enabled . }}
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.actions }}
{{- if not (has $name $names) }}
{{- fail (printf "actions.%s: there is no such action; known are %s" $name (join ", " $names)) }}
{{- end }}
{{- end }}
{{- dict "actions" $enabled | toJson }}
{{- end }}

{{/* Kind of the roles of the operator: with watchNamespace, all of its rights lie in that namespace. */}}
{{- define "incident-operator.roleKind" -}}
{{ ternary "ClusterRole" "Role" (eq .Values.watchNamespace "") }}
{{- end }}

{{/* The subject of every binding. */}}
{{- define "incident-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "incident-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
