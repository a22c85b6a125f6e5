{{/* A cloud to try the operator with, in the cluster itself. */}}

{{- define "ip-address-controller.simulatorName" -}}
{{ include "ip-address-controller.fullname" . | trunc 53 | trimSuffix "-" }}-simulator
{{- end }}

{{- define "ip-address-controller.simulatorSelector" -}}
app.kubernetes.io/name: {{ include "ip-address-controller.name" . | trunc 53 | trimSuffix "-" }}-simulator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The metadata of its objects. */}}
{{- define "ip-address-controller.simulatorMetadata" -}}
{{- $labels := merge (include "ip-address-controller.simulatorSelector" . | fromYaml) (dict "app.kubernetes.io/component" "simulator") (include "ip-address-controller.labels" . | fromYaml) }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where the operator finds it, and credentials that only it accepts. */}}
{{- define "ip-address-controller.simulatedCloud" -}}
{{- $host := printf "%s.%s.svc:8090" (include "ip-address-controller.simulatorName" .) (include "ip-address-controller.namespace" .) }}
{{- $url := printf "http://%s" $host }}
{{- $variables := dict
  "gcp" (dict "GOOGLE_COMPUTE_CUSTOM_ENDPOINT" $url "GCE_METADATA_HOST" $host)
  "aws" (dict "AWS_ENDPOINT_URL" $url "AWS_ACCESS_KEY_ID" "simulated" "AWS_SECRET_ACCESS_KEY" "simulated" "AWS_EC2_METADATA_DISABLED" "true")
  "azure" (dict "AZURE_RESOURCE_MANAGER_ENDPOINT" $url "AZURE_AUTHORITY_HOST" $url "AZURE_TENANT_ID" "72f988bf-0000-0000-0000-2d7cd011db47" "AZURE_CLIENT_ID" "11111111-2222-3333-4444-555555555555" "AZURE_CLIENT_SECRET" "simulated") -}}
- name: ALLOW_INSECURE_ENDPOINT
  value: "true"
{{- range $name, $value := get $variables .Values.simulator.provider }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Where its addresses are. */}}
{{- define "ip-address-controller.simulatedRegion" -}}
{{ get (dict "gcp" "us-west1" "aws" "us-west-2" "azure" "westeurope") .Values.simulator.provider }}
{{- end }}
