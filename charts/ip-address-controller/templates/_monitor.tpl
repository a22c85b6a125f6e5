{{/*
What a PodMonitor and a ServiceMonitor have in common. Takes a dict: root, and config, the monitor's own values. Not asked
of the cluster whether it knows the kind: `helm template` and GitOps render without one, and the object would vanish silently.
*/}}
{{- define "ip-address-controller.monitorMetadata" -}}
name: {{ include "ip-address-controller.fullname" .root }}
namespace: {{ .config.namespace | default (include "ip-address-controller.namespace" .root) }}
{{ include "ip-address-controller.metadata" (dict "root" .root "annotations" .config.annotations "labels" .config.labels) }}
{{- end }}

{{- define "ip-address-controller.monitorTargets" -}}
jobLabel: {{ .config.jobLabel }}
# The monitor may live elsewhere.
namespaceSelector:
  matchNames: [{{ include "ip-address-controller.namespace" .root }}]
selector:
  matchLabels:
    {{- include "ip-address-controller.selectorLabels" .root | nindent 4 }}
{{- end }}

{{- define "ip-address-controller.monitorEndpoint" -}}
port: metrics
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
honorLabels: {{ .honorLabels }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
