package lint_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	base  = "../kubernetes/base"
	chart = "../helm/doorbuster"
)

// object is what a manifest declares.
type object map[string]any

// at follows keys and indices, and gives nil where there is nothing.
func (o object) at(path ...any) any {
	var v any = map[string]any(o)
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return nil
			}
			v = list[step]
		}
	}
	return v
}

func (o object) text(path ...any) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) number(path ...any) int {
	n, _ := o.at(path...).(int)
	return n
}

func (o object) id() string { return o.text("kind") + "/" + o.text("metadata", "name") }

// objects are those of one installation, by kind and name.
type objects map[string]object

// one returns the only object of a kind.
func (all objects) one(t *testing.T, kind string) object {
	t.Helper()
	var found object
	for id, o := range all {
		if strings.HasPrefix(id, kind+"/") {
			if found != nil {
				t.Fatalf("two objects of kind %s", kind)
			}
			found = o
		}
	}
	if found == nil {
		t.Fatalf("no %s", kind)
	}
	return found
}

func parse(t *testing.T, text []byte) objects {
	t.Helper()
	all := objects{}
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var fields map[string]any
		err := dec.Decode(&fields)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if fields == nil {
			continue // only comments
		}
		o := object(fields)
		if all[o.id()] != nil {
			t.Errorf("%s is there twice", o.id())
		}
		all[o.id()] = o
	}
}

func kustomize(t *testing.T, dir string) objects {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

// helm renders the chart as `helm install doorbuster` does, schema included.
func helm(values map[string]any) (map[string]string, error) {
	c, err := loader.LoadDir(chart)
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "doorbuster", Namespace: "shop", IsInstall: true}
	rendered, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, rendered)
}

func helmObjects(t *testing.T, values map[string]any) objects {
	t.Helper()
	files, err := helm(values)
	if err != nil {
		t.Fatal(err)
	}
	all := objects{}
	for _, text := range files {
		for id, o := range parse(t, []byte(text)) {
			if all[id] != nil {
				t.Errorf("%s is there twice", id)
			}
			all[id] = o
		}
	}
	return all
}

// otherValues are those of the chart's own example, which sets every value.
func otherValues(t *testing.T) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValuesFile(chart + "/ci/etcd-values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// installations are all that the manifests can become.
func installations(t *testing.T) map[string]objects {
	t.Helper()
	all := map[string]objects{
		"base":              kustomize(t, base),
		"chart":             helmObjects(t, nil),
		"chart, all values": helmObjects(t, otherValues(t)),
	}
	overlays, err := filepath.Glob("../kubernetes/overlays/*")
	if err != nil || len(overlays) == 0 {
		t.Fatal("no overlay", err)
	}
	for _, dir := range overlays {
		all[filepath.Base(dir)] = kustomize(t, dir)
	}
	return all
}

func TestObjectsAreAsKubernetesHasThem(t *testing.T) {
	api := newSchemas(t)
	for name, all := range installations(t) {
		for id, o := range all {
			if err := api.validate(t, o); err != nil {
				t.Errorf("%s: %s: %v", name, id, err)
			}
		}
	}
}

// A field that Kubernetes does not know would be dropped or refused; both are mistakes.
func TestSchemasFindMistakes(t *testing.T) {
	api := newSchemas(t)
	for what, spoil := range map[string]func(o object){
		"a misspelt field": func(o object) { o.at("spec", "template", "spec").(map[string]any)["serviceAcountName"] = "x" },
		"a missing field":  func(o object) { delete(o.at("spec").(map[string]any), "template") },
		"a wrong type":     func(o object) { o.at("spec").(map[string]any)["minReadySeconds"] = "soon" },
		"a deep field": func(o object) {
			o.at("spec", "template", "spec", "containers", 0, "lifecycle", "preStop").(map[string]any)["wait"] = 5
		},
	} {
		o := kustomize(t, base).one(t, "Deployment")
		spoil(o)
		if api.validate(t, o) == nil {
			t.Errorf("%s is not found", what)
		}
	}
}

func TestChartIsLinted(t *testing.T) {
	for _, values := range []map[string]any{nil, otherValues(t)} {
		for _, m := range lint.All(chart, values, "shop", true).Messages {
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
	}
}

// What the chart renders unless told otherwise is what the base is, so that whatever
// is said of one holds for the other.
func TestChartIsTheBase(t *testing.T) {
	want, got := plain(kustomize(t, base)), plain(helmObjects(t, nil))
	if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("the chart has %v\nthe base %v", ids, slices.Sorted(maps.Keys(want)))
	}
	for id := range want {
		if !reflect.DeepEqual(want[id], got[id]) {
			a, _ := yaml.Marshal(want[id])
			b, _ := yaml.Marshal(got[id])
			t.Errorf("%s: the base has\n%s\nthe chart\n%s", id, a, b)
		}
	}
}

var (
	configHash = regexp.MustCompile(`^doorbuster-config-[a-z0-9]{10}$`)
	// chartOnly are labels, annotations and fields that a chart has and a base has not.
	chartOnly = []string{
		"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart",
		"checksum/config", "imagePullPolicy",
	}
)

// plain takes off what only tells a chart from a base.
func plain(all objects) map[string]any {
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				if slices.Contains(chartOnly, k) {
					delete(v, k)
					continue
				}
				v[k] = strip(v[k])
			}
		case []any:
			for i := range v {
				v[i] = strip(v[i])
			}
		case string:
			v = strings.TrimSuffix(v, ":1.0.0") // the image's
			if configHash.MatchString(v) {
				return "doorbuster-config"
			}
			return v
		}
		return v
	}
	out := map[string]any{}
	for _, o := range all {
		o = strip(map[string]any(o)).(map[string]any)
		if text := o.text("data", "doorbuster.yaml"); text != "" {
			var settings map[string]any
			_ = yaml.Unmarshal([]byte(text), &settings) // as far as it can be read, it is compared
			o["data"] = settings
		}
		out[o.id()] = map[string]any(o)
	}
	return out
}

func TestChartRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"an unknown value":         {"replicas": 3},
		"a nested one":             {"image": map[string]any{"tagg": "x"}},
		"a setting that it makes":  {"config": map[string]any{"listen": "0.0.0.0:1"}},
		"one of the cluster's":     {"config": map[string]any{"cluster_names": "x"}},
		"a setting that is a list": {"config": map[string]any{"channels": []any{"app"}}},
		"a provider of its own":    {"cluster": map[string]any{"provider": "consul"}},
		"etcd without an address":  {"cluster": map[string]any{"provider": "etcd"}},
		"no names":                 {"tls": map[string]any{"names": []any{}}},
		"a limit as a number":      {"goMemLimit": "3000"},
		"no time to be forgotten":  {"drain": map[string]any{"preStopSeconds": 0}},
	} {
		if _, err := helm(values); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// quantity is how many bytes Kubernetes and Go call by these names.
func quantity(t *testing.T, text string) int64 {
	t.Helper()
	text = strings.TrimSuffix(text, "B")
	for unit, size := range map[string]int64{"Mi": 1 << 20, "Gi": 1 << 30} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			var many int64
			if err := yaml.Unmarshal([]byte(n), &many); err != nil {
				t.Fatal(err)
			}
			return many * size
		}
	}
	t.Fatalf("%q is no size", text)
	return 0
}

// TestObjectsFitTogether checks what no schema knows: that names lead somewhere, and
// that the times of a rollout leave room for each other.
func TestObjectsFitTogether(t *testing.T) {
	for name, all := range installations(t) {
		t.Run(name, func(t *testing.T) {
			deployment := all.one(t, "Deployment")
			spec := object(deployment.at("spec").(map[string]any))
			pod := object(spec.at("template", "spec").(map[string]any))
			node := object(pod.at("containers", 0).(map[string]any))
			labels, _ := spec.at("template", "metadata", "labels").(map[string]any)

			t.Run("rollout", func(t *testing.T) { rollout(t, all, spec, pod, node) })
			t.Run("selectors", func(t *testing.T) { selectors(t, all, spec, labels) })
			t.Run("references", func(t *testing.T) { references(t, all, pod) })
			t.Run("ports", func(t *testing.T) { ports(t, all, pod, node) })
			t.Run("sealed", func(t *testing.T) { sealed(t, pod) })

			limit := quantity(t, node.text("resources", "limits", "memory"))
			if soft := quantity(t, variable(node, "GOMEMLIMIT")); soft >= limit || soft < limit/2 {
				t.Errorf("GOMEMLIMIT is %d of a limit of %d", soft, limit)
			}
			if node.at("resources", "limits", "cpu") != nil {
				t.Error("the processor is throttled")
			}
		})
	}
}

func rollout(t *testing.T, all objects, spec, pod, node object) {
	update := object(spec.at("strategy", "rollingUpdate").(map[string]any))
	if update.at("maxUnavailable") != 0 || update.number("maxSurge") < 1 {
		t.Errorf("a rollout takes nodes away: %v", update)
	}
	config := settings(t, all)
	drain, notice := duration(t, config["drain_timeout"]), duration(t, config["drain_notice"])
	preStop := time.Duration(node.number("lifecycle", "preStop", "sleep", "seconds")) * time.Second
	grace := time.Duration(pod.number("terminationGracePeriodSeconds")) * time.Second
	// What the drain leaves gets two seconds for connections, and parts end one by one.
	if preStop <= 0 || grace < preStop+drain+10*time.Second {
		t.Errorf("a node has %v to end, of which %v and %v are gone", grace, preStop, drain)
	}
	period := time.Duration(node.number("readinessProbe", "periodSeconds")) * time.Second
	seen := period*time.Duration(node.number("readinessProbe", "failureThreshold")) + time.Duration(node.number("readinessProbe", "timeoutSeconds"))*time.Second
	if seen > notice+preStop || notice > drain {
		t.Errorf("readiness takes %v to fail, the notice is %v after %v", seen, notice, preStop)
	}
	if budget := all.one(t, "PodDisruptionBudget"); budget.number("spec", "maxUnavailable") != 1 {
		t.Error("machines may be emptied of more than one node at a time")
	}
	scaler := all["HorizontalPodAutoscaler/doorbuster"]
	if scaler == nil {
		if spec.number("replicas") < 3 {
			t.Error("nobody sets the number of nodes")
		}
		return
	}
	if spec.at("replicas") != nil {
		t.Error("applying the Deployment undoes what the autoscaler did")
	}
	if to := scaler.text("spec", "scaleTargetRef", "name"); all["Deployment/"+to] == nil {
		t.Errorf("the autoscaler is for %s", to)
	}
	if low, high := scaler.number("spec", "minReplicas"), scaler.number("spec", "maxReplicas"); low < 3 || high < low {
		t.Errorf("%d to %d nodes", low, high)
	}
}

// selectors: each finds the pods, and there is none that finds everything.
func selectors(t *testing.T, all objects, spec object, labels map[string]any) {
	check := func(what string, selector any) {
		want, _ := selector.(map[string]any)
		if len(want) == 0 {
			t.Errorf("%s selects everything", what)
		}
		for k, v := range want {
			if labels[k] != v {
				t.Errorf("%s wants %s=%v, the pods have %v", what, k, v, labels[k])
			}
		}
	}
	check("the Deployment", spec.at("selector", "matchLabels"))
	check("the PodDisruptionBudget", all.one(t, "PodDisruptionBudget").at("spec", "selector", "matchLabels"))
	for i := range spec.at("template", "spec", "topologySpreadConstraints").([]any) {
		check("a spread", spec.at("template", "spec", "topologySpreadConstraints", i, "labelSelector", "matchLabels"))
	}
	policy := all["NetworkPolicy/doorbuster"]
	check("the NetworkPolicy", policy.at("spec", "podSelector", "matchLabels"))
	check("its nodes", policy.at("spec", "ingress", 2, "from", 0, "podSelector", "matchLabels"))
	check("its nodes", policy.at("spec", "egress", 0, "to", 0, "podSelector", "matchLabels"))
	for id, o := range all {
		if o.text("kind") == "Service" {
			check(id, o.at("spec", "selector"))
		}
	}
}

func references(t *testing.T, all objects, pod object) {
	account := pod.text("serviceAccountName")
	if all["ServiceAccount/"+account] == nil {
		t.Errorf("no ServiceAccount %s", account)
	}
	if settings(t, all)["provider"] == "k8s" {
		binding := all.one(t, "RoleBinding")
		if all["Role/"+binding.text("roleRef", "name")] == nil || binding.text("subjects", 0, "name") != account {
			t.Errorf("the account may not use leases: %v", binding)
		}
		if pod.at("automountServiceAccountToken") != true {
			t.Error("a node has no token to ask Kubernetes with")
		}
	} else if pod.at("automountServiceAccountToken") != false {
		t.Error("a node has a token that it does not need")
	}
	volumes := map[string]bool{}
	for _, v := range pod.at("volumes").([]any) {
		v := object(v.(map[string]any))
		volumes[v.text("name")] = true
		if config := v.text("configMap", "name"); config != "" && all["ConfigMap/"+config] == nil {
			t.Errorf("no ConfigMap %s", config)
		}
	}
	for _, m := range pod.at("containers", 0, "volumeMounts").([]any) {
		if name := object(m.(map[string]any)).text("name"); !volumes[name] {
			t.Errorf("no volume %s", name)
		}
	}
}

// ports: probes, services and policies name ports of the container, and those are
// where the settings let the node listen.
func ports(t *testing.T, all objects, pod, node object) {
	have := map[any]int{}
	for i := range node.at("ports").([]any) {
		have[node.text("ports", i, "name")] = node.number("ports", i, "containerPort")
	}
	config := settings(t, all)
	_, advertised, _ := strings.Cut(argument(node, "--advertise"), ":")
	for name, at := range map[string]any{"http": config["listen"], "admin": config["admin"], "cluster": "pod:" + advertised} {
		if _, port, _ := strings.Cut(at.(string), ":"); port != yamlText(have[name]) {
			t.Errorf("port %s is %d, the node listens on %v", name, have[name], at)
		}
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		if have[node.at(probe, "httpGet", "port")] == 0 {
			t.Errorf("%s asks no port", probe)
		}
	}
	for id, o := range all {
		if o.text("kind") == "Service" && have[o.at("spec", "ports", 0, "targetPort")] == 0 {
			t.Errorf("%s leads nowhere", id)
		}
	}
	policy := all["NetworkPolicy/doorbuster"]
	for i := range policy.at("spec", "ingress").([]any) {
		if have[policy.at("spec", "ingress", i, "ports", 0, "port")] == 0 {
			t.Error("the NetworkPolicy opens a port that nobody listens on")
		}
	}
	if policy.at("spec", "egress", 0, "ports", 0, "port") != have["cluster"] {
		t.Error("nodes may not reach each other")
	}
}

// sealed: as little as a process can do with.
func sealed(t *testing.T, pod object) {
	if pod.at("securityContext", "runAsNonRoot") != true || pod.text("securityContext", "seccompProfile", "type") != "RuntimeDefault" {
		t.Errorf("the pod: %v", pod.at("securityContext"))
	}
	if pod.at("enableServiceLinks") != false {
		t.Error("the names of other services become variables that look like settings")
	}
	for _, kind := range []string{"initContainers", "containers"} {
		for i := range pod.at(kind).([]any) {
			c := object(pod.at(kind, i, "securityContext").(map[string]any))
			if c.at("allowPrivilegeEscalation") != false || c.at("readOnlyRootFilesystem") != true || c.text("capabilities", "drop", 0) != "ALL" {
				t.Errorf("%s: %v", pod.text(kind, i, "name"), c)
			}
		}
	}
}

// settings are those of the file that the nodes read.
func settings(t *testing.T, all objects) map[string]any {
	t.Helper()
	var s map[string]any
	if err := yaml.Unmarshal([]byte(settingsFile(t, all)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func settingsFile(t *testing.T, all objects) string {
	t.Helper()
	return all.one(t, "ConfigMap").text("data", "doorbuster.yaml")
}

func duration(t *testing.T, v any) time.Duration {
	t.Helper()
	text, _ := v.(string)
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// argument is the value of a flag of the container.
func argument(node object, flag string) string {
	for i := range node.at("args").([]any) {
		if value, ok := strings.CutPrefix(node.text("args", i), flag+"="); ok {
			return value
		}
	}
	return ""
}

func variable(node object, name string) string {
	for i := range node.at("env").([]any) {
		if node.text("env", i, "name") == name {
			return node.text("env", i, "value")
		}
	}
	return ""
}

func yamlText(v any) string {
	text, _ := yaml.Marshal(v)
	return strings.TrimSpace(string(text))
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
