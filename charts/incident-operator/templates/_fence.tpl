{{/*
True when two maps differ at the given paths at most, as a CEL expression. Takes (dict "new" … "old" …
"paths" (list (list "spec" "replicas") …)). A path that is absent on one side counts as an empty map; a last part
that ends in `/` stands for all keys that begin with it.
*/}}
{{- define "incident-operator.fence.only" -}}
{{- $below := dict }}
{{- $whole := list }}
{{- $begin := "" }}
{{- range .paths }}
{{- if and (eq (len .) 1) (hasSuffix "/" (first .)) }}
{{- $begin = printf "%s || key.startsWith(%s)" $begin (quote (first .)) }}
{{- else }}
{{- if eq (len .) 1 }}
{{- $whole = append $whole (first .) }}
{{- end }}
{{- $_ := set $below (first .) (append (default list (get $below (first .))) (rest .)) }}
{{- end }}
{{- end }}
{{- $free := printf "key in %s%s" (keys $below | sortAlpha | toJson) $begin -}}
{{ .new }}.all(key, {{ $free }} || (key in {{ .old }} && {{ .new }}[key] == {{ .old }}[key])) &&
{{ .old }}.all(key, {{ $free }} || key in {{ .new }})
{{- range $key := keys $below | sortAlpha }}
{{- $paths := get $below $key }}
{{- if not (has $key $whole) }} &&
{{ include "incident-operator.fence.only" (dict "new" (printf "dyn(%s.?%s.orValue({}))" $.new $key) "old" (printf "dyn(%s.?%s.orValue({}))" $.old $key) "paths" $paths) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
True when the metadata differs at most in what the operator notes on a target, as a CEL expression. Takes
(dict "notes" … "update" …): what every action may note, and an entry of "updates", which may name more.
*/}}
{{- define "incident-operator.fence.metadata" -}}
{{- $labels := ternary "true" (printf "key in %s" (concat .notes.labels (default list .update.labels) | toJson)) (default false .update.anyLabel) -}}
{{- $annotations := "key.startsWith(\"incident-operator.dev/mit-\")" -}}
{{- $keys := list -}}
{{- range concat .notes.annotations (default list .update.annotations) -}}
{{- if hasSuffix "/" . -}}
{{- $annotations = printf "%s || key.startsWith(%s)" $annotations (quote .) -}}
{{- else -}}
{{- $keys = append $keys . -}}
{{- end -}}
{{- end -}}
{{- $annotations = printf "%s || key in %s" $annotations (toJson $keys) -}}
{{- $free := list "annotations" "generation" "labels" "managedFields" "resourceVersion" | toJson -}}
variables.new.metadata.all(key, key in {{ $free }} || (key in variables.old.metadata && variables.new.metadata[key] == variables.old.metadata[key])) &&
variables.old.metadata.all(key, key in {{ $free }} || key in variables.new.metadata) &&
{{- range $part, $allowed := dict "labels" $labels "annotations" $annotations }}
{{- $new := printf "variables.new.metadata.?%s.orValue({})" $part }}
{{- $old := printf "variables.old.metadata.?%s.orValue({})" $part }}
dyn({{ $new }}).all(key, {{ $allowed }} || {{ $new }}[?key] == {{ $old }}[?key]) &&
dyn({{ $old }}).all(key, {{ $allowed }} || key in {{ $new }}) &&
{{- end }}
true
{{- end }}

{{/* Whether an object bears the name and the label of what the operator makes for a mitigation. Takes a CEL expression. */}}
{{- define "incident-operator.fence.made" -}}
{{ . }}.metadata.?name.orValue("").matches("^mit-[0-9a-f]{8}(-.*)?$") &&
{{ . }}.metadata.?labels[?"incident-operator.dev/mitigated"].orValue("") == "true"
{{- end }}

{{/* Which objects of others may be deleted, as a CEL expression. Takes an entry of "deletes". */}}
{{- define "incident-operator.fence.deletable" -}}
{{- if .ownedBy -}}
variables.old.metadata.?ownerReferences.orValue([]).exists(owner, owner.kind == {{ .ownedBy | quote }} && owner.?controller.orValue(false))
{{- else if .noted -}}
dyn(variables.old.metadata.?annotations.orValue({})).exists(key, key.startsWith("incident-operator.dev/mit-"))
{{- else -}}
{{- fail (printf "files/fence.yaml: which %s may be deleted?" .resource) }}
{{- end }}
{{- end }}
