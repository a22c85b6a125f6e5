{{- define "ip-address-controller.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name, with the chart's unless it has that already. */}}
{{- define "ip-address-controller.fullname" -}}
{{- $name := include "ip-address-controller.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "ip-address-controller.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* Immutable on the Deployment: never add to it. */}}
{{- define "ip-address-controller.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ip-address-controller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Ours come last: a common label must not break a selector. */}}
{{- define "ip-address-controller.labels" -}}
{{- with omit .Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- toYaml . }}
{{ end }}
{{- include "ip-address-controller.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: ip-address-controller
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The metadata that objects have in common. Takes a dict: root, and optionally annotations and labels of the object. */}}
{{- define "ip-address-controller.metadata" -}}
{{- $labels := merge (include "ip-address-controller.labels" .root | fromYaml) (.labels | default dict) }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ip-address-controller.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "ip-address-controller.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Empty when there is none. */}}
{{- define "ip-address-controller.priorityClassName" -}}
{{- if .Values.priorityClassName }}
{{- .Values.priorityClassName }}
{{- else if .Values.priorityClass.create }}
{{- .Values.priorityClass.name | default (include "ip-address-controller.fullname" .) }}
{{- end }}
{{- end }}

{{- define "ip-address-controller.image" -}}
{{- include "ip-address-controller.imageOf" (dict "root" . "image" .Values.image) }}
{{- end }}

{{/* Takes a dict: root, and image as in the values. */}}
{{- define "ip-address-controller.imageOf" -}}
{{- $image := .image }}
{{- with .root.Values.global.imageRegistry | default $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Names and {name: NAME} alike, as a list of {name: NAME}. */}}
{{- define "ip-address-controller.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "map" . | ternary . (dict "name" .)) }}
{{- end }}
{{- with $secrets | uniq }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Without this label on the pod the webhook of Azure's workload identity does nothing, wherever the annotation is set. */}}
{{- define "ip-address-controller.cloudPodLabels" -}}
{{- if or .Values.cloud.azure.clientId (hasKey .Values.serviceAccount.annotations "azure.workload.identity/client-id") }}
azure.workload.identity/use: "true"
{{- end }}
{{- end }}

{{/* Labels of the pod of `helm test`: not those of the Deployment's pods, or Service, budget and monitors would take it for one. */}}
{{- define "ip-address-controller.checkName" -}}
{{- printf "%s-check" (include "ip-address-controller.name" . | trunc 57 | trimSuffix "-") }}
{{- end }}
