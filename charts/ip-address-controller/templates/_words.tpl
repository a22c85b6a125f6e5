{{/* The port of a URL, said or implied. */}}
{{- define "ip-address-controller.portOf" -}}
{{- regexFind ":[0-9]+(/|$)" . | trimPrefix ":" | trimSuffix "/" | default (hasPrefix "https://" . | ternary "443" "80") }}
{{- end }}

{{/* Milliseconds of a number with ms, s, m or h. */}}
{{- define "ip-address-controller.milliseconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) }}
{{- end }}

{{/* "true" for an IP address as the operator takes it: IPv4 without leading zeros, or IPv6 without a zone. */}}
{{- define "ip-address-controller.isAddress" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" }}
{{- $four := printf "%[1]s([.]%[1]s){3}" $octet }}
{{- if not (contains ":" .) }}
{{- regexMatch (printf "^%s$" $four) . }}
{{- else }}
{{- /* An IPv4 address at the end stands for two groups; "::" stands for at least one. */}}
{{- $text := regexReplaceAll (printf ":%s$" $four) . ":0:0" }}
{{- $groups := splitList ":" $text | compact | len }}
{{- $formed := regexMatch "^(::)?([0-9A-Fa-f]{1,4}(::?[0-9A-Fa-f]{1,4})*)?(::)?$" $text }}
{{- $short := contains "::" $text }}
{{- and $formed (not (regexMatch ":::|::.*::" $text)) (ternary (lt $groups 8) (eq $groups 8) $short) }}
{{- end }}
{{- end }}

{{/* What is wrong with the labels of a map, one line each: forms that the API server refuses, and keys that the chart sets
itself, so that they would be lost. Takes a dict: key, labels, and own, further keys of the chart. */}}
{{- define "ip-address-controller.wrongLabels" -}}
{{- $own := concat (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart") (.own | default list) }}
{{- $name := "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" }}
{{- range $label, $value := .labels }}
{{- if has $label $own }}
{{ printf "%s sets %s, which the chart sets itself: leave it out" $.key $label }}
{{- else if not (regexMatch (printf "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?%s$" $name) $label) }}
{{ printf "%s: %q is no key of a label: use up to 63 letters, digits, '-', '_' and '.', after a domain and '/' where there is one" $.key $label }}
{{- else if not (regexMatch (printf "^(%s)?$" $name) $value) }}
{{ printf "%s: %q is no value of label %s: use up to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends" $.key $value $label }}
{{- end }}
{{- end }}
{{- end }}
