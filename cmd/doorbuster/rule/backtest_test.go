package rule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// recorded is what a server tells of three orders, two of which version 4 prices
// otherwise.
const recorded = `{"order_id":"d-1","recorded":{"discount":0},"candidate":{"discount":990}}
{"order_id":"d-2","recorded":{"discount":990},"candidate":{"discount":0}}
`

const summaryLine = `{"type":"summary","deal_id":"d","rule_id":"spring","version":4,"currency":"CNY","orders":3,"changed":2,"cheaper":1,"dearer":1,"refused":0,` +
	`"recorded":{"revenue":28710,"discount":990},"candidate":{"revenue":28610,"discount":1090},"revenue_difference":-100,"discount_difference":100,` +
	`"faults":{"trap":1,"out_of_fuel":0},"fuel":{"p50":10,"p99":20,"max":30},"duration_ms":7,` +
	`"distribution":{"change":[{"from":-10,"to":-5,"orders":1},{"from":0,"to":0,"orders":1},{"from":5,"to":10,"orders":1},{"from":10,"to":15}],"discount":[]}}` + "\n"

// TestBacktest: the newest version is tried, the rows are kept as they came, and the
// summary says what it would have come to.
func TestBacktest(t *testing.T) {
	url, sent := answers(t, map[string]string{
		"GET /api/v1/rules/spring":                      `{"latest":4}`,
		"POST /api/v1/rules/spring/versions/4/backtest": recorded + summaryLine,
	})
	dir := t.TempDir()
	rows, svg := filepath.Join(dir, "rows"), filepath.Join(dir, "svg")
	args := []string{"backtest", "--server", url, "--rule", "spring", "--deal", "d", "--from", "2026-11-22T00:00:00Z", "--rows", rows, "--svg", svg}
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, args...); code != 0 {
		t.Fatal(code, err)
	}
	for _, want := range []string{
		"spring version 4 on 3 orders of d, in 7 ms\n",
		"changed   2: 1 cheaper, 1 dearer, 0 refused\n",
		"revenue   28710 → 28610, -100, in minor units of CNY\n",
		"discount  990 → 1090, +100\n",
		"faults    1 trap\n",
		"  5 to 10% less        1 order\n  the same             1 order\n  5 to 10% more        1 order\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "added") || strings.Contains(out.String(), "out_of_fuel") || strings.Contains(out.String(), "10 to 15%") {
		t.Errorf("tells of what did not happen:\n%s", &out)
	}
	if kept, err := os.ReadFile(rows); err != nil || string(kept) != recorded {
		t.Errorf("%v %s", err, kept)
	}
	if picture, err := os.ReadFile(svg); err != nil || !bytes.Contains(picture, []byte("</svg>")) {
		t.Errorf("%v %s", err, picture)
	}
	if code, _ := command(t.Context(), &out, append(args, "--version", "5")...); code != ExitRefused {
		t.Errorf("a version that is not there: exit code %d", code)
	}
	if kept, err := os.ReadFile(rows); err != nil || string(kept) != recorded {
		t.Errorf("a backtest that was refused took the rows of the last one: %v %s", err, kept)
	}
	if asked := sent()[1]; !strings.HasSuffix(asked, ` {"deal_id":"d","from":"2026-11-22T00:00:00Z"}`) {
		t.Error(asked)
	}
	if code, err := command(t.Context(), &out, append(args, "--expect-same")...); code != ExitDifference || !strings.Contains(err.Error(), "2 of 3 orders differ") {
		t.Error(code, err)
	}
	out.Reset()
	if code, err := command(t.Context(), &out, append(args, "--json")...); code != 0 || out.String() != summaryLine {
		t.Errorf("%d %v %s", code, err, &out)
	}
}

// TestBacktestOfAnAddedRule: the summary says so.
func TestBacktestOfAnAddedRule(t *testing.T) {
	url, _ := answers(t, map[string]string{
		"POST /api/v1/rules/spring/versions/4/backtest": strings.Replace(summaryLine, "{", `{"added":true,`, 1),
	})
	var out bytes.Buffer
	code, err := command(t.Context(), &out, "backtest", "--server", url, "--rule", "spring", "--deal", "d", "--version", "4")
	if code != 0 || !strings.Contains(out.String(), "\nadded     d does not name spring: it ran behind all rules of the deal\n") {
		t.Errorf("%d %v %s", code, err, &out)
	}
}

// TestReplay: a real order is priced again, by the project's module or by the one that
// the server recorded.
func TestReplay(t *testing.T) {
	in := &abi.Input{UnitPrice: 9900, Subtotal: 9900, Quantity: 1}
	encoded, err := in.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(map[string]any{"rules": []any{
		map[string]any{"rule": "other", "version": 9},
		map[string]any{
			"rule": "spring", "version": 3, "input": json.RawMessage(`{"order":{"quantity":1}}`),
			"input_abi": base64.StdEncoding.EncodeToString(encoded), "outcome": "discount", "discount": 990, "fuel": 6,
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := answers(t, map[string]string{
		"GET /api/v1/orders/d-1/explain":           string(told),
		"GET /api/v1/rules/spring/versions/3":      `{"version":3,"fuel_limit":5000}`,
		"GET /api/v1/rules/spring/versions/3/wasm": string(off(990).Encode()),
	})
	project := moduleProject(t, off(1000).Encode())
	saved := filepath.Join(t.TempDir(), "order.json")
	for _, c := range []struct {
		more []string
		code int
		here int64
	}{
		{nil, ExitDifference, 1000},
		{[]string{"--recorded"}, 0, 990},
		{[]string{"--save", saved}, ExitDifference, 1000},
	} {
		var out bytes.Buffer
		args := append([]string{"replay", "-C", project, "--server", url, "--order", "d-1"}, c.more...)
		code, err := command(t.Context(), &out, args...)
		want := fmt.Sprintf("order     d-1, priced by version 3\nrecorded  discount 990, fuel 6\nhere      discount %d, fuel ", c.here)
		if code != c.code || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%q: %d %v\n%s", c.more, code, err, &out)
		}
		out.Reset()
		var got replayed
		if code, err = command(t.Context(), &out, append(args, "--json")...); code != c.code {
			t.Errorf("%q: %d %v", c.more, code, err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Same != (c.code == 0) || got.Here.Discount != c.here || got.Version != 3 {
			t.Errorf("%q: %v %+v", c.more, err, got)
		}
	}
	if sample, err := os.ReadFile(saved); err != nil || string(sample) != "{\n  \"order\": {\n    \"quantity\": 1\n  }\n}\n" {
		t.Errorf("%v %s", err, sample)
	}
}

// TestRun prices one sample, and a fault is a failure.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "run", "-C", moduleProject(t, off(990).Encode())); code != 0 || !strings.HasPrefix(out.String(), "discount 990\nfuel  ") {
		t.Errorf("%d %v\n%s", code, err, &out)
	}
	out.Reset()
	if code, err := command(t.Context(), &out, "run", "-C", moduleProject(t, off(-1).Encode())); code != ExitDifference || !strings.HasPrefix(out.String(), "fault bad_output: ") {
		t.Errorf("%d %v\n%s", code, err, &out)
	}
}

// TestRunOnStandardInput: a sample can come from another program.
func TestRunOnStandardInput(t *testing.T) {
	dir := moduleProject(t, off(990).Encode())
	for keys, want := range map[string]int{`{"deal":{"unit_price":9900}}`: 0, `{"deal":{"unit_price":100}}`: ExitDifference, `{"unknown":1}`: ExitUsage, "": ExitUsage} {
		var out bytes.Buffer
		if code, err := typed(t.Context(), keys, &out, "run", "-C", dir, "--input", "-"); code != want {
			t.Errorf("%q: %d %v\n%s", keys, code, err, &out)
		}
	}
	if code, err := command(t.Context(), io.Discard, "run", "-C", dir, "--input", "-", "--watch"); code != ExitUsage {
		t.Error(code, err)
	}
}

// TestNewSaysWhatIsNext: the commands that it prints work as they are.
func TestNewSaysWhatIsNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "new", "-C", dir, "--lang", "assemblyscript", "spring"); code != 0 {
		t.Fatal(code, err)
	}
	want := "\n  cd '" + strings.ReplaceAll(dir, "'", `'\''`) + "/spring'\n  npm ci\n  doorbuster rule build\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
}

// TestNewIsNotOverwritten: a project's files are its author's.
func TestNewIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "new", "-C", dir, "--lang", "c", "spring"); code != 0 || !strings.Contains(out.String(), "doorbuster rule build\n") {
		t.Fatalf("%d %v\n%s", code, err, &out)
	}
	own := filepath.Join(dir, "spring", "rule.c")
	if err := os.WriteFile(own, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"spring", "../spring", ""} {
		if code, err := command(t.Context(), &out, "new", "-C", dir, name); code != ExitUsage {
			t.Errorf("%q: %d %v", name, code, err)
		}
	}
	if source, err := os.ReadFile(own); err != nil || string(source) != "mine" {
		t.Errorf("%v %s", err, source)
	}
}

// TestRefusedUpload: every fault that the server found is shown, each once.
func TestRefusedUpload(t *testing.T) {
	err := refusal(422, []byte(`{"code":"rule_invalid","detail":"2 faults","errors":[
		{"section":"import","offset":12,"message":"\"env\" is not offered"},{"section":"init","offset":0,"message":"trap"}]}`))
	const want = "the server answers 422 rule_invalid: 2 faults\n" +
		`  import section, offset 12: "env" is not offered` + "\n  init section, offset 0: trap"
	if err.Error() != want {
		t.Errorf("%v", err)
	}
	err = refusal(400, []byte(`{"code":"invalid_request","detail":"percent is required","errors":[{"field":"percent","message":"is required"},{"field":"mode","message":"is unknown"}]}`))
	if got := err.Error(); got != "the server answers 400 invalid_request: percent is required\n  mode is unknown" {
		t.Error(got)
	}
	if got := refusal(502, []byte("<html>\x1b[2J")).Error(); got != `the server answers 502: "<html>\x1b[2J"` {
		t.Error(got)
	}
}
