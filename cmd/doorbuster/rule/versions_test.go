package rule

import (
	"bytes"
	"strings"
	"testing"
)

// TestVersionsSayWhatIsOff: for which deals, and how it is switched on again. A server
// that does not know how to ask for those lists all deals.
func TestVersionsSayWhatIsOff(t *testing.T) {
	url, sent := answers(t, map[string]string{
		"GET /api/v1/rules/spring": `{"latest":0,"rollout":{"stable":1},"not_runnable":"version 1 is lost"}`,
		"GET /api/v1/deals": `{"data":[{"deal_id":"fine","rules":["spring"]},
			{"deal_id":"lychee","rules":["tiered","spring"],"rules_off":["spring"]}],"has_more":true}`,
	})
	for flag, want := range map[string][]string{
		"--json=false": {`PATCH /api/v1/deals/lychee {"rules":["tiered","spring"]}` + "\n", "more than these 100", "It does not run: version 1 is lost"},
		"--json":       {`"off_in":["lychee"],"off_in_more":true`, `"not_runnable":"version 1 is lost"`},
	} {
		var out bytes.Buffer
		if code, err := command(t.Context(), &out, "versions", "--server", url, "--rule", "spring", "--merchant", "acme", flag); code != 0 {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("no %s in\n%s", text, &out)
			}
		}
		if strings.Contains(out.String(), "fine") {
			t.Errorf("%s", &out)
		}
	}
	if got := sent(); got[1] != "GET /api/v1/deals?limit=100&merchant_id=acme&rule_off=spring  " {
		t.Errorf("%q", got)
	}
}
