{{- define "wharf.image" -}}
{{ required "image.repository is needed: where the image wharf of the Dockerfile was pushed to" .Values.image.repository }}:{{ required "image.tag is needed" .Values.image.tag }}
{{- end }}

{{- define "wharf.name" -}}
{{ printf "%s-node-%s" .Release.Name .Values.action | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "wharf.selector" -}}
app.kubernetes.io/name: wharf-node
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.action }}
{{- end }}

{{- define "wharf.labels" -}}
{{ include "wharf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
