{{- define "outboxcdc.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "outboxcdc.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outboxcdc.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{ include "outboxcdc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "outboxcdc.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "outboxcdc.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "outboxcdc.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where settings come from, for the stream and for init. */}}
{{- define "outboxcdc.env" -}}
- name: OUTBOXCDC_CONFIG
  value: /etc/outboxcdc/outboxcdc.yaml
{{- range $setting, $secret := .Values.secrets }}
{{- if $secret.name }}
- name: OUTBOXCDC_{{ $setting | upper | replace "-" "_" }}_FILE
  value: /etc/outboxcdc-secrets/{{ $setting }}/value
{{- end }}
{{- end }}
{{- end }}

{{- define "outboxcdc.mounts" -}}
- name: config
  mountPath: /etc/outboxcdc
  readOnly: true
{{- range $setting, $secret := .Values.secrets }}
{{- if $secret.name }}
- name: secret-{{ $setting }}
  mountPath: /etc/outboxcdc-secrets/{{ $setting }}
  readOnly: true
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "outboxcdc.container" -}}
image: {{ include "outboxcdc.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- include "outboxcdc.env" . | nindent 2 }}
volumeMounts:
  {{- include "outboxcdc.mounts" . | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end }}

{{/* The seconds of a duration such as 1m30s; 30 when it is not set. */}}
{{- define "outboxcdc.drainSeconds" -}}
{{- $drain := index .Values.config "drain-timeout" | default "30s" -}}
{{- $seconds := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" $drain -1 -}}
{{- $n := regexFind "[0-9]+" . | int -}}
{{- if hasSuffix "ms" . -}}{{- $seconds = add $seconds 1 -}}
{{- else if hasSuffix "h" . -}}{{- $seconds = add $seconds (mul $n 3600) -}}
{{- else if hasSuffix "m" . -}}{{- $seconds = add $seconds (mul $n 60) -}}
{{- else -}}{{- $seconds = add $seconds $n -}}{{- end -}}
{{- end -}}
{{- $seconds -}}
{{- end }}
