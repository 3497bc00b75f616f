{{- define "pellucid.labels" -}}
app.kubernetes.io/name: pellucid
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pellucid.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Settings for pellucid.toml: what the chart decides stands above what the user wrote. */}}
{{- define "pellucid.settings" -}}
{{- $fixed := dict
  "state" (dict "directory" "/var/lib/pellucid")
  "listener" (dict "host" "0.0.0.0" "port" (int .Values.listener.port) "plain" .Values.listener.plain)
  "worker" (dict "device" (ternary "cuda:0" "cpu" (eq .Values.worker.device "cuda")))
  "http" (dict "host" "0.0.0.0" "listener_port" 9464 "worker_port" 9465 "sender_port" 9466)
  "log" (dict "format" "json") -}}
{{- if .Values.secrets.tls }}
{{- $_ := set $fixed "tls" (dict "port" (int .Values.listener.tlsPort) "certificate" "/etc/pellucid-tls/tls.crt"
  "key" "/etc/pellucid-tls/tls.key" "trusted" "/etc/pellucid-tls/ca.crt"
  "crl" (ternary "/etc/pellucid-tls/tls.crl" "" .Values.secrets.tlsCrl)) -}}
{{- else if not .Values.listener.plain }}
{{- fail "listener.plain is false and secrets.tls is empty: nothing would listen" }}
{{- else if .Values.secrets.tlsCrl }}
{{- fail "secrets.tlsCrl is true and secrets.tls is empty: name the secret that has tls.crl" }}
{{- end }}
{{- if include "pellucid.dicomwebPort" . }}
{{- $_ := set $fixed "dicomweb" (dict "host" "0.0.0.0") -}}
{{- end }}
{{- if .Values.s3.url }}
{{- $_ := set $fixed "spool" (dict "url" .Values.s3.url "endpoint_url" .Values.s3.endpointUrl "region" .Values.s3.region
  "trusted" (ternary "/etc/pellucid-s3/ca.crt" "" .Values.s3.ca)) -}}
{{- end }}
{{- if and .Values.s3.ca (not .Values.s3.secret) }}
{{- fail "s3.ca is true and s3.secret is empty: name the secret that has ca.crt" }}
{{- end }}
{{- toToml (mergeOverwrite (deepCopy .Values.settings) $fixed) }}
{{- end }}

{{/* Port of STOW-RS; empty without one. */}}
{{- define "pellucid.dicomwebPort" -}}
{{- with dig "dicomweb" "port" 0 .Values.settings }}{{ int . }}{{ end -}}
{{- end }}

{{/* Seconds that a worker gets to finish its task: longer than any task may take. */}}
{{- define "pellucid.workerGrace" -}}
{{- $limit := dig "worker" "task_time_limit_s" 300.0 .Values.settings -}}
{{ add (int $limit) 60 }}
{{- end }}

{{- define "pellucid.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pellucid.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "pellucid.environment" -}}
- name: PELLUCID__LEDGER__DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.connections }}, key: database-url}}
- name: PELLUCID__QUEUE__BROKER_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.connections }}, key: broker-url}}
{{- if and .Values.s3.url .Values.s3.secret }}
- name: PELLUCID__SPOOL__ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .Values.s3.secret }}, key: access-key-id}}
- name: PELLUCID__SPOOL__SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.s3.secret }}, key: secret-access-key}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pellucid.mounts" -}}
- {name: settings, mountPath: /etc/pellucid, readOnly: true}
{{- if .Values.s3.url }}
- {name: scratch, mountPath: /var/lib/pellucid}
- {name: state, mountPath: /var/lib/pellucid/audit, subPath: audit}
{{- else }}
- {name: state, mountPath: /var/lib/pellucid}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- if .Values.s3.ca }}
- {name: s3, mountPath: /etc/pellucid-s3, readOnly: true}
{{- end }}
{{- if .Values.secrets.tls }}
- {name: tls, mountPath: /etc/pellucid-tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pellucid.volumes" -}}
- name: settings
  configMap: {name: {{ .Release.Name }}-settings}
- name: state
  persistentVolumeClaim: {claimName: {{ .Values.state.existingClaim | default (printf "%s-state" .Release.Name) }}}
{{- if .Values.s3.url }}
- name: scratch
  emptyDir: {sizeLimit: {{ .Values.s3.scratch }}}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- if .Values.s3.ca }}
- name: s3
  secret: {secretName: {{ .Values.s3.secret }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if .Values.secrets.tls }}
- name: tls
  secret: {secretName: {{ .Values.secrets.tls }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What is done once and ends: takes root, component, arguments (a list) and backoffLimit. */}}
{{- define "pellucid.once" -}}
backoffLimit: {{ .backoffLimit }}
template:
  metadata:
    labels: {{- include "pellucid.labels" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  spec:
    serviceAccountName: {{ .root.Release.Name }}
    automountServiceAccountToken: false
    restartPolicy: Never
    {{- with .root.Values.imagePullSecrets }}
    imagePullSecrets: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- include "pellucid.podSecurity" .root | nindent 6 }}
    containers:
      - name: {{ .component }}
        image: {{ include "pellucid.image" .root }}-cpu
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        command: {{ concat (list "pellucid" "--config" "/etc/pellucid/pellucid.toml") .arguments | toJson }}
        env: {{- include "pellucid.environment" .root | nindent 10 }}
        resources:
          requests: {cpu: 50m, memory: 128Mi}
          limits: {memory: 512Mi}
        securityContext: {{- include "pellucid.containerSecurity" .root | nindent 10 }}
        volumeMounts: {{- include "pellucid.mounts" .root | nindent 10 }}
    volumes: {{- include "pellucid.volumes" .root | nindent 6 }}
{{- end }}

{{/*
Not alive: the main loop stands still, and a restart helps. Not ready: ledger, disk or store is away; a restart would
not help, and Kubernetes sends no associations here meanwhile. The start probe allows a model to be loaded.
*/}}
{{- define "pellucid.probes" -}}
startupProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
