{{/*
The authority rules as CEL, from files/authority.yaml. A mitigation needs, of whoever asks for it or
releases it, the right that the action uses on its target:
  - held by the requester, or
  - held by the ServiceAccount that the mitigation names, which the requester may impersonate, or
  - stood in for by the MitigationPolicy that the mitigation names, which the requester may use.

A check costs 350,000 of the 1,000,000 that one expression or variable may cost, so none has more than
two of them; and of the 10,000,000 that one policy may cost, so one policy deals with four mitigations.
A variable is worked out when it is first read, so a right that the requester holds costs one check.
*/}}

{{/* A right in words, such as "patch deployments.apps/scale". */}}
{{- define "incident-operator.authority.says" -}}
{{ .verb }} {{ .resource }}{{ with .group }}.{{ . }}{{ end }}{{ with .subresource }}/{{ . }}{{ end }}
{{- end }}

{{/* A right as a CEL map. All values are strings, since the values of a map must be of one type. */}}
{{- define "incident-operator.authority.right" -}}
{"verb": {{ .verb | quote }}, "group": {{ .group | quote }}, "resource": {{ .resource | quote }}, "subresource": {{ default "" .subresource | quote }}, "named": {{ ternary "yes" "" (default false .named) | quote }}, "apiVersion": {{ default "" .apiVersion | quote }}, "says": {{ include "incident-operator.authority.says" . | quote }}}
{{- end }}

{{/* Asks whether somebody holds a right. Takes (dict "who" … "right" … "name" …), each a CEL expression. */}}
{{- define "incident-operator.authority.check" -}}
{{ .who }}.group({{ .right }}.group).resource({{ .right }}.resource).subresource({{ .right }}.subresource).namespace(request.namespace).name({{ .name }}).check({{ .right }}.verb).allowed()
{{- end }}

{{/* A field of an action block, as a CEL expression. Takes (dict "block" "m.isolate" "field" "method" "default" …). */}}
{{- define "incident-operator.authority.field" -}}
{{ .block }}.?{{ .field | replace "." ".?" }}.orValue({{ toJson .default }})
{{- end }}

{{/* What one mitigation asks for, as a CEL map of strings. Takes (dict "data" (the file) "m" … "name" … "taken" …): two CEL expressions, and whether it is to be taken, not released. string() makes the values of one type. */}}
{{- define "incident-operator.authority.wanted" -}}
{{- $m := .m }}
{"name": string({{ .name }}),
"kind": string({{ $m }}.targetRef.kind),
"target": string({{ $m }}.targetRef.name),
"apiVersion": string({{ $m }}.targetRef.?apiVersion.orValue("")),
"account": string({{ $m }}.?serviceAccountName.orValue("")),
"policy": string({{ $m }}.?policyRef.name.orValue("")),
"right":
{{- range $action := .data.actions }}
  has({{ $m }}.{{ .name }}) ? {{ if .rights }}{{ .name | quote }} +
  {{- with .by }} "/" + {{ include "incident-operator.authority.field" (dict "block" (printf "%s.%s" $m $action.name) "field" .field "default" (default "" .default)) }} +{{ end }} " " + {{ $m }}.targetRef.kind
  {{- else }}""{{ end }} :
{{- end }} "unknown",
"extra":
{{- range $action := .data.actions }}
{{- range .extras }}
{{- if or $.taken .onRelease }}
  {{- $block := printf "%s.%s" $m $action.name }}
  has({{ $block }}) && {{ include "incident-operator.authority.field" (dict "block" $block "field" .field "default" .default) }} == {{ toJson .value }}
  {{- with .when }} && {{ include "incident-operator.authority.field" (dict "block" $block "field" $action.by.field "default" $action.by.default) }} in {{ toJson . }}{{ end }} ? {{ printf "%s.%s: %v" $action.name .field .value | quote }} :
{{- end }}
{{- end }}
{{- end }} "",
"logs": {{ if .taken }}{{ $m }}.?evidence.orValue("") == "Required" ? "yes" : ""{{ else }}""{{ end }}}
{{- end }}

{{/*
The variables of an authority policy. Takes (dict "root" $ "name" … "first" 0 "count" 4): a mitigation's
name as a CEL expression about m, and which of the mitigations the policy deals with. The caller has
defined variables.asked and variables.released, lists of mitigations.
*/}}
{{- define "incident-operator.authority.variables" -}}
{{- $data := include "incident-operator.generated" (dict "root" .root "file" "files/authority.yaml") | fromJson }}
{{- $first := int .first }}
- name: rights
  expression: >-
    {
    {{- range $action := $data.actions }}
    {{- range $right := .rights }}
    {{- range default (list "") .when }}
    {{ printf "%s%s %s" $action.name (ternary (printf "/%s" .) "" (hasKey $action "by")) $right.kind | quote }}: {{ include "incident-operator.authority.right" $right }},
    {{- end }}
    {{- end }}
    {{- end }}
    }
- name: extras
  expression: >-
    {
    {{- range $action := $data.actions }}
    {{- range .extras }}
    {{ printf "%s.%s: %v" $action.name .field .value | quote }}: {{ include "incident-operator.authority.right" . }},
    {{- end }}
    {{- end }}
    }
- name: kinds
  expression: >-
    {
    {{- range $action := $data.actions }}
    {{- if .rights }}
    {{- $kinds := list }}
    {{- range $right := .rights }}
    {{- $kinds = append $kinds (printf "%s (%s)%s" .kind .apiVersion (ternary (printf " with %s %s" (dig "by" "field" "" $action) (without (default list .when) "" | join " or ")) "" (hasKey $action "by"))) }}
    {{- end }}
    {{ .name | quote }}: {{ join ", " $kinds | quote }},
    {{- end }}
    {{- end }}
    "unknown": "nothing"}
- name: logs
  expression: >-
    {{ include "incident-operator.authority.right" $data.evidence }}
- name: wanted
  expression: >-
    variables.asked.map(m, {{ include "incident-operator.authority.wanted" (dict "data" $data "m" "m" "name" .name "taken" true) | nindent 4 }}) +
    variables.released.map(m, {{ include "incident-operator.authority.wanted" (dict "data" $data "m" "m" "name" .name "taken" false) | nindent 4 }})
{{- range $i := untilStep $first (int (add $first .count)) 1 }}
{{- $wanted := printf "variables.wanted[%d]" $i }}
{{- $right := printf "variables.right%d" $i }}
{{- $extra := printf "variables.extras[%s.extra]" $wanted }}
{{- $name := printf "%s.named == \"yes\" ? %s.target : \"\"" $right $wanted }}
{{- $account := printf "authorizer.serviceAccount(request.namespace, %s.account)" $wanted }}
- name: right{{ $i }}
  expression: variables.rights[{{ $wanted }}.right]
# Whether the action works on this kind, and the target lies in the same namespace.
- name: fits{{ $i }}
  expression: >-
    {{ $wanted }}.right in variables.rights && {{ $wanted }}.apiVersion in ["", {{ $right }}.apiVersion] &&
    ({{ $wanted }}.kind != "Namespace" || {{ $wanted }}.target == request.namespace)
- name: holds{{ $i }}
  expression: >-
    {{ include "incident-operator.authority.check" (dict "who" "authorizer" "right" $right "name" $name) }}
- name: holdsMore{{ $i }}
  expression: >-
    ({{ $wanted }}.extra == "" || {{ include "incident-operator.authority.check" (dict "who" "authorizer" "right" $extra "name" "\"\"") }}) &&
    ({{ $wanted }}.logs == "" || {{ include "incident-operator.authority.check" (dict "who" "authorizer" "right" "variables.logs" "name" "\"\"") }})
- name: impersonates{{ $i }}
  expression: >-
    {{ $wanted }}.account != "" &&
    authorizer.group("").resource("serviceaccounts").namespace(request.namespace).name({{ $wanted }}.account).check("impersonate").allowed()
- name: accountHolds{{ $i }}
  expression: >-
    {{ include "incident-operator.authority.check" (dict "who" $account "right" $right "name" $name) }}
- name: accountHoldsMore{{ $i }}
  expression: >-
    ({{ $wanted }}.extra == "" || {{ include "incident-operator.authority.check" (dict "who" $account "right" $extra "name" "\"\"") }}) &&
    ({{ $wanted }}.logs == "" || {{ include "incident-operator.authority.check" (dict "who" $account "right" "variables.logs" "name" "\"\"") }})
- name: uses{{ $i }}
  expression: >-
    {{ $wanted }}.policy != "" &&
    authorizer.group("incident-operator.dev").resource("mitigationpolicies").namespace(request.namespace).name({{ $wanted }}.policy).check("use").allowed()
{{- end }}
{{- end }}

{{/*
The validations of an authority policy; they go with the variables. Every message is worked out in every
request, refused or not, so there are few. None can ask the authorizer; each says all that one mitigation
needs.
*/}}
{{- define "incident-operator.authority.validations" -}}
{{- $data := include "incident-operator.generated" (dict "root" .root "file" "files/authority.yaml") | fromJson }}
{{- $free := list }}
{{- range $data.actions }}
{{- if not .rights }}
{{- $free = append $free .name }}
{{- end }}
{{- end }}
{{- $how := "; ask for a Role that grants it, or name in serviceAccountName an account that holds it and that you may impersonate, or in policyRef a MitigationPolicy on which you hold the verb \\\"use\\\"" }}
{{- range $i := untilStep (int .first) (int (add .first .count)) 1 }}
{{- $wanted := printf "variables.wanted[%d]" $i }}
{{- $right := printf "variables.right%d" $i }}
{{- $action := printf "(%s.right == \"\" ? %s : %s.right.split(\" \")[0].split(\"/\")[0])" $wanted (join "/" $free | quote) $wanted }}
- expression: >-
    variables.wanted.size() <= {{ $i }} ||
    ({{ $wanted }}.right == "" || variables.fits{{ $i }} &&
    (variables.holds{{ $i }} || variables.impersonates{{ $i }} && variables.accountHolds{{ $i }} || variables.uses{{ $i }})) &&
    (variables.holdsMore{{ $i }} || variables.impersonates{{ $i }} && variables.accountHoldsMore{{ $i }} || variables.uses{{ $i }})
  reason: Forbidden
  messageExpression: >-
    variables.wanted.size() <= {{ $i }} ? "" :
    {{ $wanted }}.right != "" && !variables.fits{{ $i }}
    ? "mitigation \"" + {{ $wanted }}.name + "\": " + ({{ $wanted }}.kind == "Namespace" && {{ $wanted }}.right in variables.rights
    ? "only the namespace of the mitigation itself can be named: set targetRef.name to \"" + request.namespace + "\""
    : {{ $action }} + " does not work on " + {{ $wanted }}.kind + ({{ $wanted }}.apiVersion == "" ? "" : " (" + {{ $wanted }}.apiVersion + ")") +
    "; it works on " + variables.kinds[{{ $action }}])
    : "user \"" + request.userInfo.username + "\" may not " + (variables.asked.size() > {{ $i }} ? "ask for" : "release") + " mitigation \"" + {{ $wanted }}.name +
    "\" (" + {{ $action }} + " " + {{ $wanted }}.kind + "/" + {{ $wanted }}.target + "): it needs " +
    ({{ $wanted }}.right == "" ? "no right on its target" : {{ $right }}.says + ({{ $right }}.named == "yes" ? " \"" + {{ $wanted }}.target + "\"" : "")) +
    ({{ $wanted }}.extra == "" ? "" : ", for " + {{ $wanted }}.extra + " " + variables.extras[{{ $wanted }}.extra].says) +
    ({{ $wanted }}.logs == "" ? "" : ", for evidence: Required " + variables.logs.says) +
    " in namespace \"" + request.namespace + "\"{{ $how }}"
{{- end }}
{{- end }}
