package rule

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/sdk"
)

// command runs `doorbuster rule …` with nothing to read. It returns the exit code.
func command(ctx context.Context, out io.Writer, args ...string) (int, error) {
	return typed(ctx, "", out, args...)
}

// typed runs it with what a user types.
func typed(ctx context.Context, keys string, out io.Writer, args ...string) (int, error) {
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(out)
	cmd.SetIn(strings.NewReader(keys))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(ctx)
	if coded := new(Error); errors.As(err, &coded) {
		return coded.Code, err
	}
	if err != nil {
		return -1, err
	}
	return 0, nil
}

// project writes a new C project and returns its folder.
func newProject(t *testing.T) string {
	t.Helper()
	files, err := sdk.Project("c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, content := range files {
		if err := writeFile(filepath.Join(dir, file), content); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestWatch: a change of the source is built and run, and a mistake in it is
// told and not the end.
func TestWatch(t *testing.T) {
	dir := newProject(t)
	source, err := os.ReadFile(filepath.Join(dir, "rule.c"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := command(ctx, write, "run", "-C", dir, "--watch")
		ended <- errors.Join(err, write.Close())
	}()
	lines := bufio.NewScanner(read)
	want := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the watch ended before it said %q", text)
	}
	change := func(old, with string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "rule.c"), bytes.ReplaceAll(source, []byte(old), []byte(with)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want("discount 1980")
	change("1000,", "nonsense,")
	want("error:")
	change("1000,", "2000,")
	want("discount 3960")
	rate := func(points string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "rate.h"), []byte(points), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rate("2500")
	change("1000,", "\n#include \"rate.h\"\n,")
	want("discount 4950")
	rate("3000") // a file of the module that is not its source
	want("discount 5940")
	cancel()
	go func() { _, _ = io.Copy(io.Discard, read) }() // lets the last write go
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// answers is a server that gives each path its answer.
func answers(t *testing.T, byPath map[string]string) (url string, sent func() []string) {
	t.Helper()
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, fmt.Sprintf("%s %s %s %s", r.Method, r.URL, r.Header.Get("Authorization"), body))
		answer, ok := byPath[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"code":"not_found","title":"nothing here"}`
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string { return seen }
}

func TestRollout(t *testing.T) {
	const rollout = `{"stable":3,"previous":2,"pinned":true,"candidate":4,"mode":"canary","percent":5,`
	url, sent := answers(t, map[string]string{
		"GET /api/v1/rules/spring": `{"rule_id":"spring","latest":4,"rollout":{"stable":3,"previous":2,"pinned":true}}`,
		"GET /api/v1/rules/spring/rollout": rollout + `"comparison":{"stable":{"orders":95,"discount_percent":9.5},
			"candidate":{"orders":5,"faults":1,"rejections":2,"discount_percent":12.25}}}`,
		"PUT /api/v1/rules/spring/rollout":  rollout + `"bounds":{}}`,
		"POST /api/v1/rules/spring/promote": `{"stable":4,"previous":3,"pinned":true,"mode":"stable"}`,
	})
	remote := []string{"--server", url, "--rule", "spring", "--key", "dbk_x", "--merchant", "acme"}
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, append([]string{"rollout"}, remote...)...); code != 0 {
		t.Fatal(err)
	}
	for _, want := range []string{"version 3 prices orders, candidate 4: canary for 5% of users, pinned", "4        5       1       2           12.25%"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if code, err := command(t.Context(), &out, append([]string{
		"rollout", "--candidate", "4", "--mode", "canary", "--percent", "5",
		"--reason", "try it", "--reject-max", "0",
	}, remote...)...); code != 0 {
		t.Fatal(err)
	}
	const want = `PUT /api/v1/rules/spring/rollout?merchant_id=acme Bearer dbk_x {"stable":3,"candidate":4,"mode":"canary","percent":5,"reason":"try it","bounds":{"reject_percent_max":0}}`
	if got := sent(); got[len(got)-1] != want {
		t.Errorf("%s", got[len(got)-1])
	}
	out.Reset()
	if code, err := command(t.Context(), &out, append([]string{"promote", "--json", "--reason", "good"}, remote...)...); code != 0 {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) || !strings.HasSuffix(sent()[3], `{"reason":"good"}`) {
		t.Errorf("%s %s", &out, sent()[3])
	}
}

// TestRolloutGivenUp: who looks at a rule whose candidate is gone is told why, be the
// event on the last of many pages.
func TestRolloutGivenUp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/rollout"):
			_, _ = io.WriteString(w, `{"stable":1,"previous":2,"pinned":true,"mode":"stable"}`)
		case r.URL.Query().Get("cursor") == "more":
			_, _ = io.WriteString(w, `{"data":[{"seq":3,"at":"today","by":"doorbuster","action":"auto_rollback","from":2,"to":1,"why":"12 of 100 orders faulted"}],"has_more":false}`)
		default:
			_, _ = io.WriteString(w, `{"data":[{"seq":1,"action":"upload"}],"has_more":true,"next_cursor":"more"}`)
		}
	}))
	defer server.Close()
	var out bytes.Buffer
	code, err := command(t.Context(), &out, "rollout", "--server", server.URL, "--rule", "spring")
	if code != 0 || !strings.HasSuffix(out.String(), "\ncandidate 2 was given up at today: 12 of 100 orders faulted\n") {
		t.Errorf("%d %v %s", code, err, &out)
	}
}

// TestUnknownCaller: a refusal for want of a key says how to give one.
func TestUnknownCaller(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"code":"unauthorized","title":"who are you"}`)
	}))
	defer server.Close()
	code, err := command(t.Context(), new(bytes.Buffer), "rollout", "--server", server.URL, "--rule", "spring")
	if code != ExitRefused || !strings.Contains(err.Error(), "--key or DOORBUSTER_KEY") {
		t.Errorf("%d %v", code, err)
	}
}

// TestRuleOfNobody: who does not say whose rule it is, and has no merchant's key, is told
// where it was looked for.
func TestRuleOfNobody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":"rule_not_found","title":"rule not found"}`)
	}))
	defer server.Close()
	const hint = "without --merchant or DOORBUSTER_MERCHANT"
	for args, hinted := range map[string]bool{"": true, "--merchant=acme": false, "--key=k": false, "--key=dbk_operator_a_b": true, "--key=dbk_operator_a_b --merchant=acme": false} {
		code, err := command(t.Context(), new(bytes.Buffer), append([]string{"rollout", "--server", server.URL, "--rule", "spring"}, strings.Fields(args)...)...)
		if code != ExitRefused || strings.Contains(err.Error(), hint) != hinted {
			t.Errorf("%q: %d %v", args, code, err)
		}
	}
}

// TestPushFunction: a Shopify function goes up with what it comes with.
func TestPushFunction(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"f.wasm": "\x00asm", "c.json": `{"percentage":10}`, "q.graphql": "query { cart }"} {
		if err := writeFile(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	parts := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Error(err)
		}
		for name, values := range r.MultipartForm.Value {
			parts[name] = strings.Join(values, "|")
		}
		parts["query"] = r.URL.RawQuery
		_, _ = io.WriteString(w, `{"rule_id":"moved","version":1,"warnings":["slow"]}`)
	}))
	defer server.Close()
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "push", filepath.Join(dir, "f.wasm"), "--rule", "moved", "--server", server.URL, "--fuel-limit", "9",
		"--configuration", filepath.Join(dir, "c.json"), "--input-query", filepath.Join(dir, "q.graphql"), "--discount-classes", "ORDER"); code != 0 {
		t.Fatal(err)
	}
	want := map[string]string{
		"module": "\x00asm", "configuration": `{"percentage":10}`, "input_query": "query { cart }", "discount_classes": "ORDER",
		"query": "fuel_limit=9",
	}
	if !maps.Equal(parts, want) || !strings.Contains(out.String(), "warning: slow") {
		t.Errorf("%q\n%s", parts, &out)
	}
	if code, _ := command(t.Context(), &out, "push", filepath.Join(dir, "none.wasm"), "--rule", "moved", "--server", server.URL); code != ExitUsage {
		t.Errorf("a file that is not there: exit code %d", code)
	}
}

// TestPushConfiguration: the project is checked with the configuration that it goes up
// with, and goes up with that once, however it was named.
func TestPushConfiguration(t *testing.T) {
	var sent []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"rule_id":"spring","version":1}`)
	}))
	defer server.Close()
	dir := moduleProject(t, told().Encode())
	tenth := filepath.Join(t.TempDir(), "tenth.bin")
	if err := writeFile(tenth, []byte("\xde\x03\x00\x00")); err != nil {
		t.Fatal(err)
	}
	want, err := plugins.Configure(told().Encode(), []byte("\xde\x03\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	push := func() {
		t.Helper()
		sent = nil
		var out bytes.Buffer
		if code, err := command(t.Context(), &out, "push", "-C", dir, "--server", server.URL, "--configuration", tenth); code != 0 || !bytes.Equal(sent, want) {
			t.Errorf("%d %v, sent %q\n%s", code, err, sent, &out)
		}
	}
	push()
	for name, content := range map[string]string{"rule.json": `{"rule":"spring","source":"rule.c","module":"rule.wasm","configuration":"own.bin"}`, "own.bin": "\x01\x00\x00\x00"} {
		if err := writeFile(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	push()
}

func TestServerFailures(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	url, _ := answers(t, map[string]string{
		"GET /api/v1/rules/garbled":                         `<html>`,
		"GET /api/v1/rules/cut":                             `{"latest":1}`,
		"POST /api/v1/rules/cut/versions/1/backtest":        `{"type":"difference"}` + "\n",
		"POST /api/v1/rules/stopped/versions/1/backtest":    `{"type":"error","code":"draining","detail":"later"}` + "\n",
		"GET /api/v1/orders/o-1/explain":                    `{"rules":[{"rule":"cut","input_abi":"AAAA"}]}`,
		"POST /api/v1/rules/unreadable/versions/1/backtest": "no JSON\n",
	})
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nobody there":         {[]string{"versions", "--rule", "r", "--server", gone.URL}, ExitUnreachable, "connect"},
		"no server's URL":      {[]string{"versions", "--rule", "r", "--server", "ftp://x"}, ExitUsage, "not the URL"},
		"no rule's id":         {[]string{"versions", "--rule", "../x", "--server", url}, ExitUsage, "not the id"},
		"no project":           {[]string{"versions", "--server", url, "-C", t.TempDir()}, ExitUsage, "without --rule"},
		"refused":              {[]string{"versions", "--rule", "r", "--server", url}, ExitRefused, "404 not_found: nothing here"},
		"another kind of page": {[]string{"versions", "--rule", "garbled", "--server", url}, ExitRefused, "not the answer of a Doorbuster server"},
		"no summary":           {[]string{"backtest", "--deal", "d", "--rule", "cut", "--server", url}, ExitUnreachable, "without a summary"},
		"ended early":          {[]string{"backtest", "--deal", "d", "--rule", "stopped", "--version", "1", "--server", url}, ExitRefused, "draining: later"},
		"garbled lines":        {[]string{"backtest", "--deal", "d", "--rule", "unreadable", "--version", "1", "--server", url}, ExitRefused, "invalid"},
		"garbled input":        {[]string{"replay", "--order", "o-1", "--rule", "cut", "--server", url}, ExitRefused, "bad rule input"},
		"no such command":      {[]string{"chekc"}, ExitUsage, "unknown command"},
		"no such flag":         {[]string{"--nonsense"}, ExitUsage, "unknown flag"},
		"rows nowhere":         {[]string{"backtest", "--deal", "d", "--rule", "cut", "--rows", t.TempDir(), "--server", url}, ExitUsage, "directory"},
	} {
		var out bytes.Buffer
		if code, err := command(t.Context(), &out, c.args...); code != c.code || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d %v", name, code, err)
		}
	}
}

// TestLogsAreFaults: what the server keeps for those who follow is not shown without.
func TestLogsAreFaults(t *testing.T) {
	url, _ := answers(t, map[string]string{"GET /api/v1/rules/r/logs": `{"at":"1st","version":1,"outcome":"none"}` + "\n" +
		`{"at":"2nd","version":1,"outcome":"fault","fault":"trap","fault_detail":"unreachable","fuel":3}` + "\n"})
	var out bytes.Buffer
	if _, err := command(t.Context(), &out, "logs", "--rule", "r", "--server", url); err != nil || out.String() != "2nd v1 fault trap: unreachable fuel 3\n" {
		t.Error(err, out.String())
	}
}

// TestNoLogs: that there is nothing to show is said, but not among JSON.
func TestNoLogs(t *testing.T) {
	url, _ := answers(t, map[string]string{"GET /api/v1/rules/r/logs": `{"at":"1st","version":1,"outcome":"none"}` + "\n"})
	for flag, want := range map[string]string{"--json=false": "no faults of r since the server started; --follow shows what it does from now on\n", "--json": ""} {
		var out bytes.Buffer
		if code, err := command(t.Context(), &out, "logs", "--rule", "r", "--server", url, flag); code != 0 || err != nil || out.String() != want {
			t.Error(code, err, out.String())
		}
	}
}

// TestFollowedServerEnds: that is not the user's end.
func TestFollowedServerEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	if code, err := command(t.Context(), io.Discard, "logs", "-f", "--rule", "r", "--server", server.URL); code != ExitUnreachable {
		t.Error(code, err)
	}
}

// TestLostResult: a result that could not be written is none, as text and as JSON.
func TestLostResult(t *testing.T) {
	dir := moduleProject(t, off(990).Encode())
	for _, flag := range []string{"--json=false", "--json"} {
		read, write := io.Pipe()
		_ = read.Close()
		if _, err := command(t.Context(), write, "check", "-C", dir, flag); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// TestFollowEnds: who has seen enough leaves without an error.
func TestFollowEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "\n"+`{"seq":9,"at":"2026-11-22T12:00:00.000Z","version":3,"missed":7,"outcome":"discount","discount":5,"final":true,"fuel":12,"logs":["a\u001b[2Jb"]}`+"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := command(ctx, write, "logs", "-f", "--rule", "r", "--server", server.URL)
		ended <- errors.Join(err, write.Close())
	}()
	lines := bufio.NewScanner(read)
	for _, want := range []string{"… 7 missed", "2026-11-22T12:00:00.000Z v3 discount 5 final fuel 12", `  "a\x1b[2Jb"`} {
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("%q, not %q", lines.Text(), want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHistograms(t *testing.T) {
	s := &summary{RuleID: "<b>&", DealID: "d", Orders: 3}
	s.Distribution.Change = []bucket{{From: -5, To: 0, Orders: 2}, {}, {From: 0, To: 5, Orders: 1}}
	s.Distribution.Discount = []bucket{{Recorded: 3}, {From: 0, To: 5, Candidate: 1}}
	svg := s.histograms()
	d := xml.NewDecoder(bytes.NewReader(svg))
	counts := map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			counts[string(text)]++
		}
	}
	for text, want := range map[string]int{"-5…0": 1, "0…5": 2, "0": 2, "2": 2, "3": 2, "1": 4} {
		if counts[text] != want {
			t.Errorf("%q stands there %d times, not %d", text, counts[text], want)
		}
	}
	if empty := (&summary{}).histograms(); !bytes.Contains(empty, []byte("</svg>")) {
		t.Error("no orders, no picture")
	}
}
