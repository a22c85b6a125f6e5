{{/*
What the operator's container and that of `helm test` have in common: one image, one identity in the cluster, one way to
the clouds.
*/}}

{{/* What every process of the operator is told: who it is, over what it elects its leader, how it reaches the clouds. */}}
{{- define "ip-address-controller.environment" -}}
{{- include "ip-address-controller.ownEnvironment" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Without that which is only passed on. */}}
{{- define "ip-address-controller.ownEnvironment" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: LEASE_NAME
  value: {{ .Values.leaderElection.leaseName | quote }}
- name: LEASE_DURATION
  value: {{ .Values.leaderElection.leaseDurationSeconds | int64 | quote }}
- name: LEASE_SKEW_GRACE_SEC
  value: {{ .Values.leaderElection.skewGraceSeconds | int64 | quote }}
- name: HEALTH_PORT
  value: {{ .Values.controller.healthPort | int64 | quote }}
- name: METRICS_PORT
  value: {{ .Values.controller.metricsPort | int64 | quote }}
{{- with .Values.controller.bindAddress }}
- name: BIND_ADDRESS
  value: {{ . | quote }}
{{- end }}
- name: LOG_LEVEL
  value: {{ .Values.controller.logLevel | quote }}
- name: LOG_FORMAT
  value: {{ .Values.controller.logFormat | quote }}
- name: MAX_CONCURRENT_RECONCILES
  value: {{ .Values.controller.maxConcurrentReconciles | int64 | quote }}
- name: MAX_CONCURRENT_EFFECTS
  value: {{ .Values.controller.maxConcurrentEffects | int64 | quote }}
{{- with .Values.controller.cloudApi }}
- name: CLOUD_QPS
  value: {{ .qps | quote }}
- name: CLOUD_BURST
  value: {{ .burst | int64 | quote }}
- name: CLOUD_TIMEOUT
  value: {{ .timeout | quote }}
- name: CLOUD_OPERATION_TIMEOUT
  value: {{ .operationTimeout | quote }}
{{- end }}
{{- with .Values.controller.mode }}
- name: CONTROLLER_MODE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.controller.watchLabelSelector }}
- name: WATCH_LABEL_SELECTOR
  value: {{ . | quote }}
{{- end }}
{{- with .Values.controller.disruptionTaints }}
- name: DISRUPTION_TAINTS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.clusterName }}
- name: CLUSTER_NAME
  value: {{ . | quote }}
{{- end }}
{{- with .Values.cloud.gcp.existingSecret }}
{{- if .name }}
- name: GOOGLE_APPLICATION_CREDENTIALS
  value: {{ printf "/var/run/secrets/gcp/%s" .key | quote }}
{{- end }}
{{- end }}
{{- with .Values.cloud.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- if .Values.simulator.enabled }}
{{ include "ip-address-controller.simulatedCloud" . }}
{{- end }}
{{- with .Values.proxy }}
{{- with .http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .http .https }}
# A cloud's metadata service is asked on the machine itself: no proxy knows which machine that is.
- name: NO_PROXY
  value: {{ concat (list "localhost" "127.0.0.1" "::1" "169.254.169.254" "169.254.170.23" "metadata.google.internal" ".svc" ".cluster.local") (splitList "," .noProxy) | compact | join "," | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Secrets whose keys are the clouds' own variables. Empty when there is none. */}}
{{- define "ip-address-controller.environmentFrom" -}}
{{- range list .Values.cloud.aws.existingSecret.name .Values.cloud.azure.existingSecret.name | compact }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Files that both containers read. Empty when there is none. */}}
{{- define "ip-address-controller.volumeMounts" -}}
{{- if .Values.cloud.gcp.existingSecret.name }}
- name: gcp-credentials
  mountPath: /var/run/secrets/gcp
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Their volumes. Empty when there is none. */}}
{{- define "ip-address-controller.volumes" -}}
{{- with .Values.cloud.gcp.existingSecret }}
{{- if .name }}
- name: gcp-credentials
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key | quote }}
        path: {{ .key | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a pod of ours is to the cluster, wherever it runs: account, pull secrets, network, nodes. */}}
{{- define "ip-address-controller.podSpec" -}}
serviceAccountName: {{ include "ip-address-controller.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automountServiceAccountToken }}
enableServiceLinks: {{ .Values.enableServiceLinks }}
{{- with include "ip-address-controller.imagePullSecrets" . }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
