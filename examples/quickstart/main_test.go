package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

const want = `offered: 5 boxes, live
quoted: subtotal 29700, discount 4455, total 25245
ordered: 3 boxes for 25245, 2 left
tried again: the same order: true
refused: 409 sold_out
paid: confirmed
in the end: 2 available, 0 reserved, 3 sold
`

// TestQuickstart runs the program against the real server.
func TestQuickstart(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), startServer(t), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestQuickstartWithoutServer(t *testing.T) {
	if err := run(t.Context(), "http://127.0.0.1:1", new(bytes.Buffer)); err == nil {
		t.Error("no error")
	}
}

// TestQuickstartStops: whatever step goes wrong, the program says what the server said,
// and does not go on.
func TestQuickstartStops(t *testing.T) {
	answer := func(w http.ResponseWriter, status int, body string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	for good, says := range []string{
		"503 overloaded: later", "503 overloaded: later", "503 overloaded: later", "503 overloaded: later",
		"", // bob, who is to be refused
		"503 overloaded: later", "503 overloaded: later",
	} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			switch asked {
			case good + 1:
				answer(w, 503, `{"status":503,"code":"overloaded","detail":"later"}`)
			case 5:
				answer(w, 409, `{"status":409,"code":"sold_out"}`)
			default:
				answer(w, 201, `{"deal_id":"d","order_id":"o"}`)
			}
		}))
		err := run(t.Context(), server.URL, io.Discard)
		server.Close()
		if says != "" && (err == nil || err.Error() != says || asked != good+1) || says == "" && (err != nil || asked != 7) {
			t.Errorf("after %d good answers of %d: %v", good, asked, err)
		}
	}
	for says, body := range map[string]string{"bob was not refused": "{}", "unexpected EOF": "{"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, body) }))
		if err := run(t.Context(), server.URL, io.Discard); err == nil || err.Error() != says {
			t.Errorf("%s: %v", body, err)
		}
		server.Close()
	}
}

func startServer(t *testing.T) (url string) {
	t.Helper()
	server := filepath.Join(t.TempDir(), "doorbuster")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", server, "../../cmd/doorbuster").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(context.Background(), server, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", t.TempDir())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + regexp.MustCompile(`listening on ([^,]+),`).FindStringSubmatch(line)[1]
}
