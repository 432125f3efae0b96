{{/* The name of everything: the release's, or "doorbuster" within it. */}}
{{- define "doorbuster.name" -}}
{{- contains "doorbuster" .Release.Name | ternary .Release.Name (printf "%s-doorbuster" .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* What tells the pods of this release from all others. */}}
{{- define "doorbuster.selector" -}}
app.kubernetes.io/name: doorbuster
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "doorbuster.labels" -}}
{{ include "doorbuster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "doorbuster.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "doorbuster.sealed" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "doorbuster.postgres" -}}
- name: DOORBUSTER_POSTGRES
  valueFrom:
    secretKeyRef: {name: {{ .Values.postgres.secret }}, key: {{ .Values.postgres.key }}}
{{- end }}

{{/* The settings that the chart decides, over those of the values. */}}
{{- define "doorbuster.config" -}}
{{- $decided := dict
  "listen" ":8080" "admin" ":9090" "data" "/var/lib/doorbuster" "auth" "keys"
  "cluster" true "provider" .Values.cluster.provider "cluster_names" (join "," .Values.tls.names)
  "cluster_tls_ca" "/etc/doorbuster/tls/ca.crt" "cluster_tls_cert" "/etc/doorbuster/tls/tls.crt" "cluster_tls_key" "/etc/doorbuster/tls/tls.key"
  "drain_timeout" (printf "%ds" (int .Values.drain.timeoutSeconds)) "drain_notice" (printf "%ds" (int .Values.drain.noticeSeconds)) }}
{{- if eq .Values.cluster.provider "etcd" }}{{ $_ := set $decided "etcd" (join "," .Values.cluster.etcd) }}{{ end }}
{{- toYaml (merge $decided .Values.config (dict "log_format" "json")) }}
{{- end }}
