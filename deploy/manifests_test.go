package deploy_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
	known := readMetrics(t, admin+"/metrics")
	for _, m := range scaler.Spec.Metrics {
		known.check(t, "autoscaler.yaml", m.Pods.Metric.Name)
	}
	adapter := string(read(t, "../docs/deploy.md"))
	if len(scaler.Spec.Metrics) == 0 || !strings.Contains(adapter, "seriesQuery: "+scaler.Spec.Metrics[0].Pods.Metric.Name) {
		t.Error("docs/deploy.md does not say how Kubernetes learns of what the autoscaler goes by")
	}
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
