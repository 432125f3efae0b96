package rule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// twoVersions is what a server says of a rule whose second version takes half off, and
// its first a tenth.
var twoVersions = map[string]string{
	"GET /api/v1/rules/spring":                      `{"rule_id":"spring","latest":2,"rollout":{"stable":2,"previous":1}}`,
	"GET /api/v1/deals":                             `{"data":[],"has_more":false}`,
	"GET /api/v1/rules/spring/versions/2":           `{"rule_id":"spring","version":2,"sha256":"bb","size":20,"fuel_limit":100000,"created_at":"today"}`,
	"GET /api/v1/rules/spring/versions/1":           `{"rule_id":"spring","version":1,"sha256":"aa","size":10,"fuel_limit":100000,"created_at":"yesterday"}`,
	"POST /api/v1/rules/spring/versions/2/evaluate": `{"outcome":"discount","discount":4950,"label":"half"}`,
	"POST /api/v1/rules/spring/versions/1/evaluate": `{"outcome":"discount","discount":990}`,
	"POST /api/v1/rules/spring/rollback":            `{"stable":1,"pinned":true,"mode":"stable"}`,
}

// withAnswer are the answers of twoVersions, but for one.
func withAnswer(what, answer string) map[string]string {
	all := maps.Clone(twoVersions)
	all[what] = answer
	return all
}

// rolledBack says whether the server was asked to, and how.
func rolledBack(sent []string) string {
	i := slices.IndexFunc(sent, func(ask string) bool { return strings.HasPrefix(ask, "POST /api/v1/rules/spring/rollback ") })
	if i < 0 {
		return ""
	}
	return sent[i]
}

const shownDifference = `version 2: sha256 bb, 20 bytes, uploaded today
version 1: sha256 aa, 10 bytes, uploaded yesterday
sample.json
  now   discount 4950 label "half"
  then  discount 990
a tenth
  now   discount 4950 label "half"
  then  discount 990
2 of 2 samples change
`

// TestRollback: the difference is shown, then it is asked, and only a yes changes what
// shoppers pay.
func TestRollback(t *testing.T) {
	project := moduleProject(t, nil)
	for name, c := range map[string]struct {
		keys   string
		args   []string
		code   int
		prints string
		asks   string // the server for a rollback; "": does not
	}{
		"yes":        {"y\n", nil, 0, shownDifference + "Go back to version 1? [y/N] spring: version 1 prices orders, pinned", "spring/rollback  "},
		"Yes":        {" YES \n", nil, 0, "spring: version 1", "spring/rollback  "},
		"no":         {"n\n", nil, ExitDifference, shownDifference, ""},
		"no answer":  {"", nil, ExitDifference, shownDifference, ""},
		"in a job":   {"", []string{"--yes"}, 0, shownDifference + "spring: version 1 prices orders", "spring/rollback  "},
		"with cause": {"", []string{"--yes", "--reason", `too "cheap"`}, 0, "", `spring/rollback  {"reason":"too \"cheap\""}`},
	} {
		t.Run(name, func(t *testing.T) {
			url, sent := answers(t, twoVersions)
			var out bytes.Buffer
			code, err := typed(t.Context(), c.keys, &out, append([]string{"rollback", "-C", project, "--server", url}, c.args...)...)
			if code != c.code || !strings.Contains(out.String(), c.prints) {
				t.Errorf("exit code %d, %v\n%s", code, err, &out)
			}
			if asked := rolledBack(sent()); (asked == "") != (c.asks == "") || !strings.HasSuffix(asked, c.asks) {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

// TestRollbackOfACandidate gives up what is tried, and not what sells.
func TestRollbackOfACandidate(t *testing.T) {
	url, sent := answers(t, withAnswer("GET /api/v1/rules/spring",
		`{"latest":2,"rollout":{"stable":1,"previous":9,"candidate":2,"mode":"canary","percent":5}}`))
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "rollback", "--server", url, "--rule", "spring", "--yes"); code != 0 {
		t.Fatal(code, err)
	}
	if !strings.HasPrefix(out.String(), "version 2: sha256 bb") || !strings.Contains(out.String(), "\nversion 1: sha256 aa") || rolledBack(sent()) == "" {
		t.Errorf("%s\n%q", &out, sent())
	}
	if strings.Contains(out.String(), "samples") {
		t.Errorf("compared outside of the rule's project:\n%s", &out)
	}
}

// TestRollbackForAProgram: what is for people does not get between.
func TestRollbackForAProgram(t *testing.T) {
	url, _ := answers(t, twoVersions)
	cmd, shown, result := New(), new(bytes.Buffer), new(bytes.Buffer)
	cmd.SetArgs([]string{"rollback", "-C", moduleProject(t, nil), "--server", url, "--yes", "--json"})
	cmd.SetErr(shown)
	cmd.SetOut(result)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if shown.String() != shownDifference || strings.TrimSpace(result.String()) != twoVersions["POST /api/v1/rules/spring/rollback"] {
		t.Errorf("%s\n%s", shown, result)
	}
}

// TestRollbackBlind: where the difference cannot be shown, nothing is changed, whatever
// the user says.
func TestRollbackBlind(t *testing.T) {
	project := moduleProject(t, nil)
	for name, c := range map[string]struct {
		server map[string]string
		says   string
	}{
		"nothing before it":        {withAnswer("GET /api/v1/rules/spring", `{"latest":2,"rollout":{"stable":2}}`), "no version to go back to"},
		"a version without answer": {withAnswer("POST /api/v1/rules/spring/versions/1/evaluate", "<html>"), "sample.json: "},
		"a version that is gone":   {withAnswer("GET /api/v1/rules/spring/versions/1", "<html>"), "not the answer of a Doorbuster server"},
	} {
		t.Run(name, func(t *testing.T) {
			url, sent := answers(t, c.server)
			for _, yes := range []string{"--yes", "--yes=false"} {
				code, err := typed(t.Context(), "y\n", new(bytes.Buffer), "rollback", "-C", project, "--server", url, yes)
				if code != ExitRefused || !strings.Contains(err.Error(), c.says) || rolledBack(sent()) != "" {
					t.Errorf("%s: %d %v, asked for %q", yes, code, err, rolledBack(sent()))
				}
			}
		})
	}
}

// TestRollbackAsksOfSome: a project of thousands of cases does not become as many calls.
func TestRollbackAsksOfSome(t *testing.T) {
	var cases []string
	for i := range compareMax + 10 {
		cases = append(cases, fmt.Sprintf(`{"name":"case %d","input":{},"expect":{"outcome":"none"}}`, i))
	}
	project := write(t, map[string]string{
		"rule.json":    `{"rule":"spring","source":"rule.c","module":"rule.wasm"}`,
		"vectors.json": `{"rule":"spring","cases":[` + strings.Join(cases, ",") + `]}`,
	})
	url, _ := answers(t, twoVersions)
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "rollback", "-C", project, "--server", url, "--yes"); code != 0 ||
		!strings.Contains(out.String(), fmt.Sprintf("\n%d of %d samples change\n", compareMax, compareMax)) {
		t.Errorf("%d %v\n%s", code, err, &out)
	}
}

func TestVersions(t *testing.T) {
	url, _ := answers(t, withAnswer("GET /api/v1/rules/spring", `{"latest":2,"rollout":{"stable":1,"candidate":2,"mode":"shadow"}}`))
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "versions", "--server", url, "--rule", "spring"); code != 0 {
		t.Fatal(code, err)
	}
	const want = `VERSION  ROLE    SIZE  FUEL LIMIT  SHA256  UPLOADED
2        shadow  20    100000      bb      today
1        stable  10    100000      aa      yesterday
`
	if out.String() != want {
		t.Errorf("%s", &out)
	}
	out.Reset()
	var listed struct{ Versions []version }
	if code, err := command(t.Context(), &out, "versions", "--server", url, "--rule", "spring", "--limit", "1", "--json"); code != 0 {
		t.Fatal(code, err)
	}
	if err := json.Unmarshal(out.Bytes(), &listed); err != nil || len(listed.Versions) != 1 || listed.Versions[0].Version != 2 {
		t.Errorf("%v %+v", err, listed)
	}
}
