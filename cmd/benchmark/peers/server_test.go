package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// stub is a shop that always answers the same.
type stub struct {
	receipt
	err error
}

func (s *stub) place(context.Context, *order) (receipt, error) { return s.receipt, s.err }
func (s *stub) close() error                                   { return nil }

// TestAnswers: what stands before the peers answers as the product does. Otherwise wrk
// would compare errors, which are quick.
func TestAnswers(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{}
	ended := make(chan error, 1)
	go func() { ended <- serve(t.Context(), listener, s) }()
	defer func() {
		_ = listener.Close()
		<-ended
	}()
	const good = `{"deal_id":"d-0","user_id":"u","quantity":2}`
	sold := receipt{Seq: 7, Quantity: 2, Available: 3, Total: 20, At: 1_000}
	for name, c := range map[string]struct {
		body, key string
		stub      stub
		status    int
		says      string
	}{
		"sold":          {good, "k", stub{receipt: sold}, 201, `{"order_id":"d-0-7","deal_id":"d-0","user_id":"u","quantity":2,"status":"reserved",`},
		"sold out":      {good, "k", stub{err: errSoldOut}, 409, errSoldOut.Error()},
		"over a limit":  {good, "k", stub{err: errLimit}, 409, errLimit.Error()},
		"another order": {good, "k", stub{err: errMismatch}, 422, errMismatch.Error()},
		"no deal":       {good, "k", stub{err: errNoDeal}, 404, errNoDeal.Error()},
		"no database":   {good, "k", stub{err: errors.New("gone")}, 503, "unavailable"},
		"no JSON":       {"{", "k", stub{}, 400, "invalid_json"},
		"no key":        {good, "", stub{}, 422, "invalid_request"},
		"no user":       {`{"deal_id":"d-0","quantity":1}`, "k", stub{}, 422, "invalid_request"},
		"nothing":       {`{"deal_id":"d-0","user_id":"u"}`, "k", stub{}, 422, "invalid_request"},
		"far too much":  {`{"deal_id":"d-0","user_id":"u","quantity":1000000000}`, "k", stub{}, 422, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			*s = c.stub
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+listener.Addr().String()+"/api/v1/orders", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Idempotency-Key", c.key)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || !strings.Contains(string(text), c.says) {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		})
	}
}
