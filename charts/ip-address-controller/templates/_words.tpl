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
