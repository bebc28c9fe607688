{{- define "millrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* KubeRay adds to it for its services and pods, so it is kept short. */ -}}
{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "millrace.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "millrace.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "millrace.selector" -}}
app.kubernetes.io/name: {{ include "millrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "millrace.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "millrace.tokenSecret" -}}
{{- default (include "millrace.fullname" .) .Values.auth.secretName -}}
{{- end -}}

{{- /* What every container of ours is told. */ -}}
{{- define "millrace.env" -}}
- name: RAY_AUTH_MODE
  value: {{ ternary "token" "disabled" .Values.auth.enabled }}
- name: RAY_worker_niceness
  value: "0"
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: RAY_metric_cardinality_level
  value: recommended
- name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
  value: {{ .Values.drainSeconds | quote }}
- name: RAY_health_check_period_ms
  value: {{ .Values.ray.healthCheck.periodMs | quote }}
- name: RAY_health_check_timeout_ms
  value: {{ .Values.ray.healthCheck.timeoutMs | quote }}
- name: RAY_health_check_failure_threshold
  value: {{ .Values.ray.healthCheck.failureThreshold | quote }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "millrace.credentials" -}}
{{- with .Values.checkpoints.credentialsSecret -}}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end -}}
{{- end -}}

{{- /* The pod of a head or of a group of workers: root, pods (its values), container, lasting. */ -}}
{{- define "millrace.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "millrace.selector" $root | nindent 4 }}
  {{- with .pods.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  {{- with $root.Values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ include "millrace.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      ports:
        {{- if eq .container "ray-head" }}
        - {name: gcs, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: metrics, containerPort: 8080}
      env:
        {{- include "millrace.env" $root | nindent 8 }}
      {{- with include "millrace.credentials" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $root.Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .pods.resources | nindent 8 }}
      volumeMounts:
        - {name: logs, mountPath: /tmp/ray}
  volumes:
    - name: logs
      emptyDir:
        sizeLimit: {{ .pods.logSize }}
{{- end -}}
