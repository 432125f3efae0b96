// Command quickstart is a shop's first ten minutes with Doorbuster, over plain
// HTTP and JSON, as any language can do it. Start a server, then the program:
//
//	go run ./cmd/doorbuster serve
//	go run ./examples/quickstart
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	server := flag.String("server", "http://127.0.0.1:8080", "where the server listens")
	flag.Parse()
	if err := run(context.Background(), *server, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server string, out io.Writer) error {
	shop := shop{server: server}

	// A merchant offers five boxes at 99.00 CNY each. Money is an integer in
	// minor units. The rule prices every order; it is a WebAssembly module that
	// ships with the server. The server chooses an id, as we name none.
	deal, err := shop.post(ctx, "/api/v1/deals", "", `{
		"merchant_id": "acme", "title": "Lychee 2.5 kg", "category": "fruit",
		"currency": "CNY", "unit_price": 9900, "stock": 5, "rules": ["tiered"]}`)
	if err != nil {
		return err
	}
	id := deal["deal_id"]
	fmt.Fprintf(out, "offered: %v boxes, %v\n", deal["stock"], deal["status"])

	// A shopper asks what three boxes would cost. Nothing is reserved.
	three := fmt.Sprintf(`{"deal_id": %q, "user_id": "ann", "quantity": 3}`, id)
	quote, err := shop.post(ctx, "/api/v1/quotes", "", three)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "quoted: subtotal %v, discount %v, total %v\n", quote["subtotal"], quote["discount_total"], quote["total"])

	// She orders them. When the answer is here, the order is on disk.
	order, err := shop.post(ctx, "/api/v1/orders", "ann-1", three)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ordered: %v boxes for %v, %v left\n", order["quantity"], order["total"], order["available"])

	// The network is bad and her app tries again. The key is the same, so the
	// order is the same, and nothing is sold twice.
	again, err := shop.post(ctx, "/api/v1/orders", "ann-1", three)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "tried again: the same order: %v\n", again["order_id"] == order["order_id"])

	// Another shopper wants three as well, but only two are left.
	_, err = shop.post(ctx, "/api/v1/orders", "bob-1", fmt.Sprintf(`{"deal_id": %q, "user_id": "bob", "quantity": 3}`, id))
	var no *problem
	if !errors.As(err, &no) {
		return errors.Join(errors.New("bob was not refused"), err)
	}
	fmt.Fprintf(out, "refused: %d %s\n", no.Status, no.Code)

	// The payment has arrived, so what was reserved is sold. A reservation that
	// nobody pays expires, and its stock returns.
	paid, err := shop.post(ctx, fmt.Sprintf("/api/v1/orders/%s/confirm", order["order_id"]), "", `{"payment_ref": "pay-1"}`)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "paid: %v\n", paid["status"])

	// At every moment, available + reserved + sold is the stock.
	deal, err = shop.get(ctx, fmt.Sprintf("/api/v1/deals/%s", id))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "in the end: %v available, %v reserved, %v sold\n", deal["available"], deal["reserved"], deal["sold"])
	return nil
}

// shop calls the API of one server.
type shop struct{ server string }

// object is a JSON object. A program of your own would declare types.
type object map[string]any

// problem is an answer that says no (RFC 9457). Code is for machines, and
// stays what it is; Detail is for people.
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

func (s shop) get(ctx context.Context, path string) (object, error) {
	return s.do(ctx, http.MethodGet, path, "", "")
}

func (s shop) post(ctx context.Context, path, idempotencyKey, body string) (object, error) {
	return s.do(ctx, http.MethodPost, path, idempotencyKey, body)
}

func (s shop) do(ctx context.Context, method, path, idempotencyKey, body string) (object, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.server+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	if resp.StatusCode/100 != 2 {
		no := new(problem)
		if err := json.NewDecoder(resp.Body).Decode(no); err != nil {
			return nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, no
	}
	var answer object
	decoder := json.NewDecoder(resp.Body)
	decoder.UseNumber() // money is not a float
	err = decoder.Decode(&answer)
	return answer, err
}
