{{/* How the operator sends its traces, in the words of OpenTelemetry. Empty when it does not. */}}
{{- define "ip-address-controller.tracing" -}}
{{- with .Values.tracing }}
{{- if .enabled }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .sampler | quote }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .samplerArg | quote }}
{{- if .headersSecret.name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ .headersSecret.name }}
      key: {{ .headersSecret.key | quote }}
{{- end }}
{{- if .caSecret.name }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: {{ printf "/var/run/secrets/otlp/%s" .caSecret.key | quote }}
{{- end }}
# What a process cannot know of itself.
{{- $attributes := dict "k8s.deployment.name" (include "ip-address-controller.fullname" $) "k8s.container.name" "controller" "service.instance.id" "$(POD_NAMESPACE).$(POD_NAME).controller" }}
{{- $pairs := list }}
{{- range $key, $value := merge (dict) .resourceAttributes $attributes }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $pairs | quote }}
{{- end }}
{{- end }}
{{- end }}
