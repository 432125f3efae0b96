package deploy_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The manifests themselves are checked by the module in lint. Here is what they ask of
// a server that runs, and what systemd thinks of its unit.

// TestManifestsAskWhatTheServerAnswers: the probes, what Prometheus scrapes and what
// the autoscaler goes by.
func TestManifestsAskWhatTheServerAnswers(t *testing.T) {
	api, admin := startServer(t)
	var node struct {
		Spec struct {
			Template struct {
				Metadata struct{ Annotations map[string]string }
				Spec     struct{ Containers []map[string]any }
			}
		}
	}
	readYAML(t, "kubernetes/base/deployment.yaml", &node)
	annotations := node.Spec.Template.Metadata.Annotations
	paths := []string{annotations["prometheus.io/path"]}
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		get, _ := node.Spec.Template.Spec.Containers[0][probe].(map[string]any)["httpGet"].(map[string]any)
		if get["port"] != "admin" {
			t.Errorf("%s asks %v", probe, get)
		}
		paths = append(paths, get["path"].(string))
	}
	for _, path := range paths {
		if got := status(t, admin+path); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := status(t, api+"/metrics"); got == http.StatusOK {
		t.Error("shoppers can read the metrics")
	}

	var scaler struct {
		Spec struct {
			Metrics []struct {
				Pods struct{ Metric struct{ Name string } }
			}
		}
	}
	readYAML(t, "kubernetes/base/autoscaler.yaml", &scaler)
	known, learnt := readMetrics(t, admin+"/metrics"), map[string]bool{}
	for _, r := range adapterRules(t) {
		learnt[r.Name.As] = true
		name, _, _ := strings.Cut(r.SeriesQuery, "{") // the labels are Kubernetes's
		known.check(t, "seriesQuery", name, nil)
		query := strings.NewReplacer("<<.GroupBy>>", "pod", "<<.LabelMatchers>>", `instance=~"$pods"`).Replace(r.MetricsQuery)
		known.check(t, "metricsQuery", query, nil)
		promql(t, []string{query})
	}
	if len(scaler.Spec.Metrics) == 0 {
		t.Error("the autoscaler goes by nothing")
	}
	for _, m := range scaler.Spec.Metrics {
		if name := m.Pods.Metric.Name; !learnt[name] {
			t.Errorf("docs/deploy.md does not say how Kubernetes learns of %q", name)
		}
	}
}

// adapterRule is as much of a rule of Prometheus Adapter as is used here.
type adapterRule struct {
	SeriesQuery  string `yaml:"seriesQuery"`
	MetricsQuery string `yaml:"metricsQuery"`
	Name         struct{ As string }
}

// adapterRules reads those that docs/deploy.md tells operators to install.
func adapterRules(t *testing.T) []adapterRule {
	t.Helper()
	_, after, _ := strings.Cut(string(read(t, "../docs/deploy.md")), "```yaml\nrules:\n")
	text, _, found := strings.Cut(after, "```")
	var rules []adapterRule
	if err := yaml.Unmarshal([]byte(text), &rules); err != nil || !found {
		t.Fatalf("docs/deploy.md has no rules for the adapter: %v", err)
	}
	return rules
}

func status(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// exposureMax is what systemd may say of the unit, of 100: what is left are the
// network, memory for machine code and the host's root folder, read-only.
const exposureMax = "15"

func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: run `go tool task tools`, or install Debian's package systemd")
	}
	text := string(read(t, "systemd/doorbuster.service"))
	// It looks whether the command is there, so it gets one that is.
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "doorbuster.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(text, "/usr/local/bin/doorbuster", here)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=yes", "--threshold=" + exposureMax, "--no-pager", unit},
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
		}
	}
}
