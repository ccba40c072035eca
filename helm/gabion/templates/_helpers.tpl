{{- define "gabion.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that what is put behind it stays within 63. */}}
{{- define "gabion.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gabion.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gabion.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gabion.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gabion.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gabion.labels" -}}
{{ include "gabion.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "gabion.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gabion.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "gabion.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A probe: (dict "timing" ... "service" "readiness"); the empty service is the process itself. */}}
{{- define "gabion.probe" -}}
exec:
  command:
    - gabionctl
    - --server=unix:/run/gabion/gabiond.sock
    - --timeout={{ max 1 (sub .timing.timeoutSeconds 1) }}
    - health
    {{- with .service }}
    - {{ . }}
    {{- end }}
{{ toYaml .timing }}
{{- end -}}
