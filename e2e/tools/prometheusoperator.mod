// The Prometheus operator's CRDs (example/prometheus-operator-crd), which the chart's tests apply its monitors and rules to.
// No tool is built from this.
module tools/prometheusoperator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
