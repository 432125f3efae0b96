package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// turnedAwayWithin is how long balancers may send traffic to a node that does not reach
// the journal: on a busy machine. Alone it takes two seconds.
const turnedAwayWithin = 15 * time.Second

// loseJournal takes the journal away from a node and gives it back.
func loseJournal(t *testing.T, database *pgtest.Server, node *live, operator string) {
	t.Helper()
	get := func(url string) (status int, answer string) {
		t.Helper()
		status, answer, err := request(t.Context(), []string{"GET", "http://" + url, "", "Authorization: Bearer " + operator})
		must(t, err)
		return status, answer
	}
	becomes := func(ready int, within time.Duration) {
		t.Helper()
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			status, answer := get(node.admin + "/readyz")
			switch {
			case status == ready:
				return
			case time.Since(begin) > within:
				t.Fatalf("after %v: %d %s, want %d", within, status, answer, ready)
			}
		}
	}
	becomes(http.StatusOK, knownWithin)
	database.Kill(t)
	if status, answer := get(node.addr + "/api/v1/deals"); status != http.StatusServiceUnavailable || !strings.Contains(answer, `"unavailable"`) {
		t.Errorf("a list without the journal: %d %s", status, answer)
	}
	becomes(http.StatusServiceUnavailable, turnedAwayWithin)
	database.Up(t)
	becomes(http.StatusOK, turnedAwayWithin)
}

// knownWithin is how long a change may take from its commit to the other nodes, which
// hear of it at once or not at all: a second, and the rest is for a busy machine.
const knownWithin = 10 * time.Second

// TestNodesShareChanges: rules, keys and webhooks that one node was given are known to the
// other one, with the journal on two servers. A node that reaches none of these is not ready.
func TestNodesShareChanges(t *testing.T) {
	database := pgtest.Start(t)
	var journal []string
	for _, name := range []string{"shard0", "shard1"} {
		database.Exec(t, "postgres", "CREATE DATABASE "+name)
		journal = append(journal, "--postgres", database.URL(name))
	}
	var out, problems bytes.Buffer
	for _, args := range [][]string{{"migrate"}, {"keys", "create", "--role", "operator"}} {
		out.Reset()
		if code := run(append(args, journal...), &out, &problems); code != 0 {
			t.Fatal(problems.String())
		}
	}
	operator := strings.TrimSpace(out.String())
	var nodes [2]*live
	var addresses [2]string
	for i := range addresses {
		var err error
		addresses[i], err = porttest.Address()
		must(t, err)
	}
	for i := range nodes {
		nodes[i] = startWith(t, "doorbuster", append(append(serveArgs(t.TempDir()), journal...),
			"--cluster", "--advertise", addresses[i], "--provider", "static", "--peers", strings.Join(addresses[:], ","), "--auth", "keys", "--drain-notice", "0s"))
	}
	ask := func(want int, key, method, path, body string, headers ...string) string {
		t.Helper()
		addr := nodes[0].addr
		if strings.HasPrefix(path, "/api/v1/admin/") {
			addr = nodes[0].admin
		}
		args := append([]string{method, "http://" + addr + path, body, "Authorization: Bearer " + key}, headers...)
		status, answer, err := request(t.Context(), args)
		if err != nil || status != want {
			t.Fatalf("%s %s: %d %s %v, want %d", method, path, status, answer, err, want)
		}
		return answer
	}
	soon := func(what, key, method, path string, is func(status int, answer string) bool) {
		t.Helper()
		var status int
		var answer string
		for begin := time.Now(); time.Since(begin) < knownWithin; time.Sleep(5 * time.Millisecond) {
			var err error
			status, answer, err = request(t.Context(), []string{method, "http://" + nodes[1].addr + path, "", "Authorization: Bearer " + key})
			must(t, err)
			if is(status, answer) {
				t.Logf("%s is known after %v", what, time.Since(begin).Round(time.Millisecond))
				return
			}
		}
		t.Errorf("%s is not known after %v: %d %s", what, knownWithin, status, answer)
	}

	var key struct {
		ID  string `json:"key_id"`
		Key string
	}
	must(t, json.Unmarshal([]byte(ask(http.StatusCreated, operator, "POST", "/api/v1/admin/keys", `{"role":"merchant","merchant_id":"acme"}`)), &key))
	soon("a key", key.Key, "GET", "/api/v1/rules", func(status int, _ string) bool { return status == http.StatusOK })

	module, err := os.ReadFile("../../plugins/house/tiered.wasm")
	must(t, err)
	for n := 1; n <= 3; n++ {
		ask(http.StatusCreated, key.Key, "POST", "/api/v1/rules/sale/versions", string(module), "Content-Type: application/wasm")
		soon("a version", key.Key, "GET", "/api/v1/rules", func(_ int, answer string) bool {
			return strings.Contains(answer, fmt.Sprintf(`"rule_id":"sale","merchant_id":"acme","latest":%d,`, n))
		})
		module = append(module, "\x00\x02\x01x"...) // a custom section, which makes it another one
	}
	ask(http.StatusOK, key.Key, "PUT", "/api/v1/rules/sale/rollout", `{"stable":2}`)
	soon("a rollout", key.Key, "GET", "/api/v1/rules/sale", func(_ int, answer string) bool { return strings.Contains(answer, `"stable":2,`) })

	ask(http.StatusCreated, key.Key, "PUT", "/api/v1/webhooks/shop", `{"url":"https://shop.example/","events":["order.placed"]}`)
	soon("a webhook", key.Key, "GET", "/api/v1/webhooks/shop", func(status int, _ string) bool { return status == http.StatusOK })
	ask(http.StatusNoContent, key.Key, "DELETE", "/api/v1/webhooks/shop", "")
	soon("its end", key.Key, "GET", "/api/v1/webhooks/shop", func(status int, _ string) bool { return status == http.StatusNotFound })

	ask(http.StatusNoContent, operator, "DELETE", "/api/v1/admin/keys/"+key.ID, "")
	soon("the end of a key", key.Key, "GET", "/api/v1/rules", func(status int, _ string) bool { return status == http.StatusUnauthorized })
	loseJournal(t, database, nodes[1], operator)
	for _, node := range nodes {
		must(t, node.signal())
		must(t, node.cmd.Wait())
	}
}
