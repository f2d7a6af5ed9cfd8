{{/*
The kinds that the configuration lets scale work on (config.scalableKinds): the same list gives the operator
its rights on them, asks requesters for theirs, and tells the fence which field may change.
*/}}

{{/* Adds what the listed kinds need to a generated file. Takes (dict "root" $ "file" "files/…" "data" …) and changes data. */}}
{{- define "incident-operator.scalable" -}}
{{- $file := .file }}
{{- $data := .data }}
{{- $seen := dict "Deployment" true "StatefulSet" true }}
{{- range dig "scalableKinds" list (default dict .root.Values.config) }}
{{- if hasKey $seen .kind }}
{{- fail (printf "config.scalableKinds: %s is listed twice, or scaled anyway" .kind) }}
{{- end }}
{{- $_ := set $seen .kind true }}
{{- $group := ternary (dir .apiVersion) "" (contains "/" .apiVersion) }}
{{- $path := default ".spec.replicas" .replicasPath | trimPrefix "." }}
{{- if not (hasPrefix "spec." $path) }}
{{- fail (printf "config.scalableKinds: the replicasPath of %s is not below .spec" .kind) }}
{{- end }}
{{- $full := printf "%s.%s" .plural $group | trimSuffix "." }}
{{- if eq $file "files/reader.yaml" }}
{{- $_ := set $data "rules" (append $data.rules (dict "apiGroups" (list $group) "resources" (list .plural) "verbs" (list "get" "list" "watch"))) }}
{{- else if eq $file "files/fence.yaml" }}
{{- $_ := set $data "resources" (append $data.resources (dict "group" $group "resource" .plural)) }}
{{- end }}
{{- $kind := . }}
{{- range default list $data.actions }}
{{- if eq .name "scale" }}
{{- if eq $file "files/actions.yaml" }}
{{- $_ := set . "rules" (append .rules (dict "apiGroups" (list $group) "resources" (list $kind.plural) "verbs" (list "patch"))) }}
{{- else if eq $file "files/authority.yaml" }}
{{- $_ := set . "rights" (append .rights (dict "kind" $kind.kind "apiVersion" $kind.apiVersion "verb" "patch" "group" $group "resource" $kind.plural "subresource" "scale" "named" true)) }}
{{- else if eq $file "files/fence.yaml" }}
{{- $_ := set . "updates" (append .updates (dict "resources" (list $full) "fields" (list $path) "labels" list "annotations" list "anyLabel" false)) }}
{{- $_ := set . "says" (printf "%s; %s of %s" .says $path $full) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
