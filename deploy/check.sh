#!/usr/bin/env bash
# Holds what is in deploy/ against the tools of those who read it: the chart against helm
# and the API's schemas, the alerts against promtool, the dashboard against the metrics.
# The tools are fetched once, into the cache of the test servers.
set -euo pipefail
cd "$(dirname "$0")"

cache=${OUTBOXCDC_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/outboxcdc-test}/deploy
mkdir -p "$cache"
kubernetes=1.34.0
helm() { go run helm.sh/helm/v3/cmd/helm@v3.22.0 "$@"; }
kubeconform() { go run github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0 "$@"; }

# promtool: of this machine, or out of Debian's package.
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
  promtool=$cache/prometheus/usr/bin/promtool
  if [ ! -x "$promtool" ]; then
    (cd "$cache" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } && dpkg -x prometheus_*.deb prometheus) ||
      { echo "deploy/check.sh needs promtool: install prometheus" >&2; exit 1; }
  fi
fi

# The schemas of Kubernetes' API, which a Python package brings along, strict about names
# that it does not know. They refer to a file of definitions that kubeconform does not
# follow, so each gets the definitions.
schemas=$cache/schemas/kubernetes-$kubernetes
if [ ! -d "$schemas" ]; then
  python3 -m pip download --quiet --no-deps --dest "$cache" kubernetes-validate==1.37.0
  python3 - "$cache"/kubernetes_validate-*.whl "$schemas" <<'PYTHON'
import json, os, sys, zipfile
package, out = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
folder = "kubernetes_validate/kubernetes-json-schema/v%s-local-strict/" % out.rsplit("-", 1)[1]
read = lambda name: package.read(folder + name).decode().replace("/api/_definitions.json#/", "#/")
definitions = json.loads(read("_definitions.json"))["$defs"]
os.makedirs(out + ".new")
for kind in "configmap-v1", "service-v1", "serviceaccount-v1", "statefulset-apps-v1", "poddisruptionbudget-policy-v1":
    schema = json.loads(read(kind + ".json"))
    schema["$defs"] = definitions
    schema.pop("$id", None)
    json.dump(schema, open("%s.new/%s.json" % (out, kind), "w"))
os.rename(out + ".new", out)
PYTHON
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
required=(--set config.slot=orders --set secrets.database-url.name=orders --set secrets.sink.name=orders)

helm lint helm/outboxcdc --strict --kube-version "$kubernetes" "${required[@]}"
render() { # name, flags: one way to use the chart
  local name=$1
  shift
  helm template stream helm/outboxcdc --kube-version "$kubernetes" --api-versions monitoring.coreos.com/v1 "${required[@]}" "$@" > "$work/$name.yaml"
  kubeconform -strict -summary -skip ServiceMonitor,PrometheusRule \
    -schema-location "$schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$work/$name.yaml"
}
render plain
render everything --set standby.enabled=true --set init.enabled=true --set serviceMonitor.enabled=true \
  --set prometheusRule.enabled=true --set config.drain-timeout=1m30s

want() { grep -q -- "$2" "$work/$1.yaml" || { echo "the chart's $1 rendering lacks: $2" >&2; exit 1; }; }
want plain 'replicas: 1'
want plain 'terminationGracePeriodSeconds: 45'
want everything 'replicas: 2'
want everything 'terminationGracePeriodSeconds: 105'
want everything 'kind: ServiceMonitor'
want everything 'alert: OutboxcdcSlotNearLoss'

# The commands of docs/deployment.md, as they are printed; rendered rather than installed.
page=../docs/deployment.md
printed=$(sed -n '/^helm install /,/^```/{/^```/d;p}' "$page")
[ -n "$printed" ] || { echo "$page has no helm install" >&2; exit 1; }
(cd .. && eval "${printed/helm install/helm template --kube-version $kubernetes}") > "$work/printed.yaml"
secret=$(sed -n 's/^kubectl create secret generic \([a-z-]*\).*/\1/p' "$page")
want printed "secretName: $secret\$"
for key in $(grep -o -- '--from-literal=[a-z-]*' "$page"); do want printed "key: \"${key#*=}\""; done
want printed 'slot: orders'

for missing in config.slot secrets.database-url.name secrets.sink.name; do
  if helm template stream helm/outboxcdc --kube-version "$kubernetes" "${required[@]}" --set "$missing=" > "$work/refused" 2>&1; then
    echo "the chart renders without $missing" >&2
    exit 1
  fi
  grep -q "${missing##*secrets.}" "$work/refused" || { echo "the chart refuses without naming $missing:" >&2; cat "$work/refused" >&2; exit 1; }
done

# The settings that the chart writes are ones that the program takes.
python3 - "$work/plain.yaml" "$work/outboxcdc.yaml" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
block = re.search(r"outboxcdc\.yaml: \|\n((?:    .*\n|\n)+)", text).group(1)
open(sys.argv[2], "w").write(re.sub(r"(?m)^    ", "", block))
PYTHON
OUTBOXCDC_SINK=stdout:// go run ../cmd/outboxcdc config lint --config "$work/outboxcdc.yaml"

"$promtool" check rules prometheus/alerts.yaml
"$promtool" test rules prometheus/alerts.test.yaml
echo "deploy: sound"
