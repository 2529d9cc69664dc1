{{- define "longtail.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "longtail.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "longtail.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Names of cluster-wide objects: two releases in two namespaces must not share them. */}}
{{- define "longtail.clusterName" -}}
{{- $name := include "longtail.fullname" . -}}
{{- ternary $name (printf "%s-%s" .Release.Namespace $name) (eq .Release.Namespace "longtail-system") -}}
{{- end -}}

{{- define "longtail.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "longtail.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "longtail.selectorLabels" -}}
app.kubernetes.io/name: {{ include "longtail.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "longtail.labels" -}}
{{ include "longtail.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: longtail
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata but for the name: a list of the root, and further annotations. */}}
{{- define "longtail.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "longtail.labels" $root | nindent 2 }}
{{- with merge (dict) (index . 1) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "longtail.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "longtail.credentials" -}}/etc/longtail/credentials{{- end -}}

{{/* The file that --metrics-sources-file reads. Credentials are names of files, never values. */}}
{{- define "longtail.sources" -}}
{{- $credentials := include "longtail.credentials" . -}}
sources:
{{- range $name, $source := .Values.metricsSources }}
  {{- $folder := printf "%s/%s" $credentials $name }}
  {{ $name }}:
    url: {{ tpl $source.url $ | quote }}
    {{- if $source.serviceAccountToken }}
    bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
    {{- else if $source.bearerTokenSecretRef }}
    bearerTokenFile: {{ $folder }}/token
    {{- end }}
    {{- with $source.basicAuth }}
    basic:
      username: {{ .username | quote }}
      passwordFile: {{ $folder }}/password
    {{- end }}
    {{- with $source.tls }}
    {{- if or .caSecretRef .caConfigMapRef }}
    caFile: {{ $folder }}/ca.crt
    {{- end }}
    {{- if .certSecretName }}
    mTLS:
      certFile: {{ $folder }}/tls.crt
      keyFile: {{ $folder }}/tls.key
    {{- end }}
    {{- end }}
    {{- range $key := list "headers" "labels" "scrapeIntervalSeconds" "timeoutSeconds" }}
    {{- with index $source $key }}
    {{ $key }}: {{ toJson . }}
    {{- end }}
    {{- end }}
{{- else }}
  {}
{{- end }}
{{- end -}}

{{/* Sources of a projected volume: each file that "longtail.sources" names. */}}
{{- define "longtail.credentialFiles" -}}
{{- range $name, $source := .Values.metricsSources }}
{{- with $source.bearerTokenSecretRef }}
- secret:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ $name }}/token}]
{{- end }}
{{- with $source.basicAuth }}
- secret:
    name: {{ .passwordSecretRef.name }}
    items: [{key: {{ .passwordSecretRef.key | quote }}, path: {{ $name }}/password}]
{{- end }}
{{- with $source.tls }}
{{- with .caSecretRef }}
- secret:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ $name }}/ca.crt}]
{{- end }}
{{- with .caConfigMapRef }}
- configMap:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ $name }}/ca.crt}]
{{- end }}
{{- with .certSecretName }}
- secret:
    name: {{ . }}
    items: [{key: tls.crt, path: {{ $name }}/tls.crt}, {key: tls.key, path: {{ $name }}/tls.key}]
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The rights over the objects of a namespace that is served. */}}
{{- define "longtail.rules" -}}
# The resources, and what `kubectl get rsv` shows.
- apiGroups: [longtail.dev]
  resources: [reasoningservings]
  verbs: [list, watch]
- apiGroups: [longtail.dev]
  resources: [reasoningservings/status]
  verbs: [patch]
# Readiness and cold starts; out of routing and back. get: to look again where somebody else has changed a pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Only for pods with the readiness gate longtail.dev/in-service.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
# Whether the routing label keeps requests away.
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [list, watch]
# Targets.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [list, watch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [list, watch]
{{- range $group, $resources := include "longtail.scaleTargets" . | fromYaml }}
- apiGroups: [{{ $group | quote }}]
  resources: {{ toJson $resources }}
  verbs: [get, patch]
{{- end }}
# Conflicts with other autoscalers.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list, watch]
# What spec.effort publishes. No right to read: whose a ConfigMap is, a rehearsed patch tells.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Map of API group to the scale subresources that may be written. */}}
{{- define "longtail.scaleTargets" -}}
{{- $groups := dict -}}
{{- range .Values.rbac.scaleTargets -}}
{{- $known := default (list) (index $groups .apiGroup) -}}
{{- $_ := set $groups .apiGroup (append $known (printf "%s/scale" .resource)) -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{- define "longtail.subject" -}}
- kind: ServiceAccount
  name: {{ include "longtail.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
