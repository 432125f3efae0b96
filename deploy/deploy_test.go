// Package deploy_test checks what operators are given: that the alerts fire when
// they should, that each has a page to read at night, and that neither rules nor
// dashboards ask for a metric that no server exports.
package deploy_test

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	rulesFile     = "prometheus/doorbuster.rules.yml"
	rulesTestFile = "prometheus/doorbuster.rules_test.yml"
	runbooks      = "../docs/runbooks"
	runbookURL    = "https://github.com/doorbuster/doorbuster/blob/main/docs/runbooks/"
)

// rule is a recording rule or an alert.
type rule struct {
	Record      string
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	readYAML(t, rulesFile, &file)
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatal("found no rule")
	}
	return rules
}

// board is a dashboard, as far as it is judged here.
type board struct {
	file   string
	UID    string
	Links  []struct{ URL string }
	Panels []struct {
		ID      int
		Title   string
		Targets []struct {
			Expr   string
			Legend string `json:"legendFormat"`
		}
	}
}

func readBoards(t *testing.T) (boards []board) {
	t.Helper()
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("found no dashboard", err)
	}
	for _, file := range files {
		b := board{file: file}
		if err := json.Unmarshal(read(t, file), &b); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		boards = append(boards, b)
	}
	return boards
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "test", "rules", rulesTestFile)
}

func TestEveryAlertIsSeenToFireAndToBeSilent(t *testing.T) {
	var file struct {
		Tests []struct {
			Checks []struct {
				Alert  string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, rulesTestFile, &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.Checks {
			if len(c.Expect) > 0 {
				fires[c.Alert] = true
			} else {
				silent[c.Alert] = true
			}
		}
	}
	for _, r := range readRules(t) {
		if r.Alert != "" && (!fires[r.Alert] || !silent[r.Alert]) {
			t.Errorf("%s: a test sees it fire: %t, be silent: %t", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

func TestEveryAlertHasARunbook(t *testing.T) {
	index := string(read(t, filepath.Join(runbooks, "README.md")))
	want := []string{"README.md"}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		page := r.Alert + ".md"
		want = append(want, page)
		if got := r.Annotations["runbook_url"]; got != runbookURL+page {
			t.Errorf("%s: its runbook_url is %q", r.Alert, got)
		}
		if !strings.Contains(index, "]("+page+")") {
			t.Errorf("%s: README.md does not say when to look at it", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: its severity is %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: it has no summary or no description", r.Alert)
		}
	}
	entries, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for _, e := range entries {
		pages = append(pages, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(pages, want) {
		t.Errorf("the pages are\n%v\nand the alerts want\n%v", pages, want)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)\)`)

func TestRunbooksLinkToWhatIsThere(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		for _, to := range link.FindAllStringSubmatch(string(read(t, page)), -1) {
			if _, err := os.Stat(filepath.Join(runbooks, to[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// grafanaVariables stands in for Grafana, so that promtool can read what a
// dashboard asks.
var grafanaVariables = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".+")

func TestDashboards(t *testing.T) {
	var asked []string
	uids := map[string]bool{}
	for _, b := range readBoards(t) {
		if b.UID == "" || uids[b.UID] {
			t.Errorf("%s: uid %q is empty or taken", b.file, b.UID)
		}
		uids[b.UID] = true
		if !slices.ContainsFunc(b.Links, func(l struct{ URL string }) bool { return l.URL == runbookURL+"README.md" }) {
			t.Errorf("%s: it does not link to the runbooks", b.file)
		}
		ids := map[int]bool{}
		for _, p := range b.Panels {
			if p.ID == 0 || ids[p.ID] {
				t.Errorf("%s: %s: id %d is zero or taken", b.file, p.Title, p.ID)
			}
			ids[p.ID] = true
			if len(p.Targets) == 0 {
				t.Errorf("%s: %s: it shows nothing", b.file, p.Title)
			}
			for _, target := range p.Targets {
				asked = append(asked, grafanaVariables.Replace(target.Expr))
			}
		}
	}
	promql(t, asked)
}

// promql has promtool read expressions: a recording rule is one, and JSON is YAML.
func promql(t *testing.T, exprs []string) {
	t.Helper()
	type record struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var records []record
	for i, expr := range exprs {
		records = append(records, record{"checked:" + strconv.Itoa(i), expr})
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "checked", "rules": records}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "checked.rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func TestOnlyExportedMetricsAreUsed(t *testing.T) {
	known := scrape(t)
	known["up"] = nil // Prometheus's own
	rules := readRules(t)
	for _, r := range rules {
		if r.Record != "" {
			known[r.Record] = nil
		}
	}
	for _, r := range rules {
		known.check(t, r.Record+r.Alert, r.Expr, shownBy(template, slices.Collect(maps.Values(r.Annotations))...))
	}
	for _, b := range readBoards(t) {
		for _, p := range b.Panels {
			for _, target := range p.Targets {
				known.check(t, b.file+": "+p.Title, target.Expr, shownBy(legend, target.Legend))
			}
		}
	}
}

// The check is no better than what it finds in an expression.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	known := metrics{"a_total": {"code": {"ok": true, "{bad}": true}}, "b": nil}
	for _, test := range []struct{ expr, want string }{
		{`sum by (job, code) (rate(a_total{code!~"ok|{bad}"}[1m])) / on (job) group_left b offset 5m > 1e9 or b`, ""},
		{`sum by (code) (a_total) / on () group_left sum(b)`, ""},
		{`sum by (channel) (a_total)`, "nothing here has the label channel"},
		{`b * on (code) b`, "nothing here has the label code"},
		{`histogram_quantile(0.99, c_total) and a_total`, "no server exports c_total"},
		{`b + a_total{code="fine"}`, `a_total has no code="fine"`},
		{`a_total{kind=~"ok",job="x"}`, `a_total has no kind="ok"`},
		{`a_total{code=~"ok|no|{bad}"}`, `a_total has no code="no"`},
		{`a_total{code=~"$instance"} or x:y`, "no server exports x:y"},
	} {
		if got := strings.Join(known.faults(test.expr), "; "); got != test.want {
			t.Errorf("%s: found %q, want %q", test.expr, got, test.want)
		}
	}
	for _, test := range []struct{ expr, shown, want string }{
		{`a_total`, "of {{code}} at {{ instance }}", ""},
		{`sum by (code) (a_total)`, "{{code}}", ""},
		{`sum by (code) (a_total)`, "{{instance}}", "its result has no instance"},
		{`b`, "{{code}}", "its result has no code"},
	} {
		if got := strings.Join(known.faults(test.expr, shownBy(legend, test.shown)...), "; "); got != test.want {
			t.Errorf("%s shown as %q: found %q, want %q", test.expr, test.shown, got, test.want)
		}
	}
	if got := shownBy(template, "{{ or $labels.instance `all` }}", "{{ $value }}, {{ $labels.fault }}"); !slices.Equal(got, []string{"instance", "fault"}) {
		t.Errorf("found %q in annotations", got)
	}
}

// metrics are the values of each label of each metric.
type metrics map[string]map[string]map[string]bool

var (
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\b\s*(\([^)]*\))?`)
	selector = regexp.MustCompile(`(\b[a-zA-Z_][\w:]*)(\{(?:[^"}]|"[^"]*")*\})?\s*(\()?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	// labelName finds the labels of a grouping, and legend and template those that a
	// legend of Grafana and an annotation of an alert show.
	labelName = regexp.MustCompile(`\w+`)
	legend    = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	template  = regexp.MustCompile(`\$labels\.(\w+)`)
	words     = []string{"and", "or", "unless", "offset", "bool"}
	targets   = []string{"job", "instance", "pod"} // labels that Prometheus adds
	classes   = regexp.MustCompile(`^[1-5]xx$`)
)

func (m metrics) check(t *testing.T, where, expr string, shown []string) {
	t.Helper()
	for _, fault := range m.faults(expr, shown...) {
		t.Errorf("%s: %s", where, fault)
	}
}

// faults lists the metrics, labels and label values of an expression that are not in m,
// and which of the labels that are shown of its result it cannot have.
func (m metrics) faults(expr string, shown ...string) (faults []string) {
	labels, kept := slices.Clone(targets), []string(nil)
	for _, found := range selector.FindAllStringSubmatch(withoutRanges(grouping.ReplaceAllString(expr, " ")), -1) {
		name, selected, function := found[1], found[2], found[3] != ""
		if function || slices.Contains(words, name) {
			continue
		}
		known, ok := m[name]
		if !ok {
			faults = append(faults, "no server exports "+name)
			continue
		}
		labels = slices.AppendSeq(labels, maps.Keys(known))
		for _, match := range matcher.FindAllStringSubmatch(selected, -1) {
			for value := range strings.SplitSeq(match[2], "|") {
				if !knows(known, match[1], value) {
					faults = append(faults, name+" has no "+match[1]+"="+strconv.Quote(value))
				}
			}
		}
	}
	for _, group := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range labelName.FindAllString(group[2], -1) {
			if !slices.Contains(labels, label) {
				faults = append(faults, "nothing here has the label "+label)
			}
			if group[1] == "by" {
				kept = append(kept, label)
			}
		}
	}
	if kept == nil {
		kept = labels
	}
	for _, label := range shown {
		if !slices.Contains(kept, label) {
			faults = append(faults, "its result has no "+label)
		}
	}
	return faults
}

// shownBy finds the labels that a text shows.
func shownBy(form *regexp.Regexp, texts ...string) (labels []string) {
	for _, found := range form.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
		labels = append(labels, found[1])
	}
	return labels
}

// knows says whether a label may have a value. Classes of status show up with
// their first reply, so all of them count.
func knows(known map[string]map[string]bool, label, value string) bool {
	switch {
	case slices.Contains(targets, label) || strings.HasPrefix(value, "$"):
		return true
	case label == "status":
		return known[label] != nil && classes.MatchString(value)
	}
	return known[label][value]
}

// withoutRanges drops [1m] and the like.
func withoutRanges(expr string) string {
	return regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(expr, "")
}

// scrape starts a server, lets every route of orders answer, and returns what
// /metrics tells.
func scrape(t *testing.T) metrics {
	t.Helper()
	api, admin := startServer(t)
	call := func(path, body string, want int) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "first")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Fatalf("%s: %s: %s", path, resp.Status, text)
		}
	}
	call("/api/v1/deals", `{"deal_id":"d","merchant_id":"m","title":"Lychee","category":"fruit","currency":"CNY","unit_price":100,"stock":10,"rules":["tiered"]}`, 201)
	call("/api/v1/orders", `{"deal_id":"d","user_id":"u","quantity":1}`, 201)
	call("/api/v1/orders", `{"deal_id":"d","user_id":"v","quantity":100}`, 409)
	call("/api/v1/orders/d-2/confirm", `{"payment_ref":"p"}`, 200)
	call("/api/v1/orders/d-2/cancel", `{}`, 409)
	call("/api/v1/orders/d-2/refund", `{}`, 409)
	return readMetrics(t, admin+"/metrics")
}

var sample = regexp.MustCompile(`^(\w+)(\{.*\})? \S+$`)

func readMetrics(t *testing.T, url string) metrics {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	m := metrics{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		found := sample.FindStringSubmatch(lines.Text())
		if found == nil {
			continue // a comment
		}
		if m[found[1]] == nil {
			m[found[1]] = map[string]map[string]bool{}
		}
		for _, label := range matcher.FindAllStringSubmatch(found[2], -1) {
			if m[found[1]][label[1]] == nil {
				m[found[1]][label[1]] = map[string]bool{}
			}
			m[found[1]][label[1]][label[2]] = true
		}
	}
	if err := lines.Err(); err != nil || len(m) == 0 {
		t.Fatal("no metrics", err)
	}
	return m
}

var banner = regexp.MustCompile(`listening on (\S+), admin on (\S+),`)

// startServer builds and runs the server as it is shipped, and returns the URLs
// of its listeners.
func startServer(t *testing.T) (api, admin string) {
	t.Helper()
	watchSources(t)
	binary := filepath.Join(t.TempDir(), "doorbuster")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../cmd/doorbuster").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := exec.Command(binary, "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--stock-guard", "redis://127.0.0.1:1") // where nobody answers: it has its metrics all the same
	server.Stderr = t.Output()
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	found := banner.FindStringSubmatch(line)
	if err != nil || found == nil {
		t.Fatalf("the server says %q: %v", line, err)
	}
	return "http://" + found[1], "http://" + found[2]
}

// watchSources looks at the files that decide what is exported. `go test` sees
// what a test looks at, not what it builds, and would serve a stale pass.
func watchSources(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"../cmd/doorbuster/*.go", "../runtime/obs/*.go", "../gateway/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal("found nothing at", pattern, err)
		}
		for _, file := range files {
			if _, err := os.Stat(file); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Fatal("promtool is missing: run `go tool task tools`, or install Debian's package prometheus")
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal(read(t, file), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
