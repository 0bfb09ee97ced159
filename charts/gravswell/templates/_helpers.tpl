{{/* Name of everything in the release; 63 characters is the longest label. */}}
{{- define "gravswell.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "gravswell.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gravswell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "gravswell.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- define "gravswell.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "gravswell.labels" -}}
{{ include "gravswell.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: gravswell
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Fails where the cluster does not serve a kind of the Prometheus operator: (list CONTEXT VALUE KIND). */}}
{{- define "gravswell.needs" -}}
{{- $kind := printf "monitoring.coreos.com/v1/%s" (index . 2) -}}
{{- if not ((index . 0).Capabilities.APIVersions.Has $kind) -}}
{{- fail (printf "%s needs %s, which this cluster does not serve: install the Prometheus operator's definitions first; helm template is told of them by --api-versions %s" (index . 1) $kind $kind) -}}
{{- end -}}
{{- end }}
