package rule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
)

const (
	callMax  = 2 * time.Minute // one call, an upload's compilation included
	replyMax = 64 << 20        // bytes of an answer
)

// remote is a rule on a server. It speaks HTTP by the standard library and not by
// the house's own client: merchants reach a server over TLS and through proxies.
type remote struct {
	server, key, merchant string
	rule                  string // "": the project's

	base *url.URL
}

// addRemote adds the flags that say which server and which rule.
func addRemote(cmd *cobra.Command) *remote {
	r := &remote{}
	flags := cmd.Flags()
	flags.StringVar(&r.server, "server", fromEnv("server", "http://127.0.0.1:8080"), "URL of the server; "+config.Env("server"))
	flags.StringVar(&r.key, "key", "", "merchant's key; "+config.Env("key"))
	flags.StringVar(&r.merchant, "merchant", fromEnv("merchant", ""), "merchant, for an operator and in open mode; "+config.Env("merchant"))
	flags.StringVar(&r.rule, "rule", "", "id of the rule (default: the project's)")
	return r
}

func fromEnv(flag, otherwise string) string {
	if value := os.Getenv(config.Env(flag)); value != "" {
		return value
	}
	return otherwise
}

// connect completes the flags. It does not reach for the server yet.
func (r *remote) connect(o *options) error {
	if r.rule == "" {
		p, err := o.load()
		if err != nil {
			return fmt.Errorf("without --rule, the project's rule is meant, but %w", err)
		}
		r.rule = p.Rule
	}
	if !deal.ValidID(r.rule) {
		return failf(ExitUsage, "%q is not the id of a rule", r.rule)
	}
	if r.key == "" {
		r.key = fromEnv("key", "")
	}
	if !strings.Contains(r.server, "://") {
		r.server = "http://" + r.server
	}
	base, err := url.Parse(r.server)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return failf(ExitUsage, "%q is not the URL of a server", r.server)
	}
	r.base = base
	return nil
}

// rulePath is a path below the rule's.
func (r *remote) rulePath(below string) string { return "/api/v1/rules/" + r.rule + below }

// get asks and decodes the answer into reply, unless that is nil.
func (r *remote) get(ctx context.Context, path string, reply any) (json.RawMessage, error) {
	return r.call(ctx, request{method: http.MethodGet, path: path}, reply)
}

type request struct {
	method, path string
	query        url.Values
	contentType  string
	body         []byte
}

// call asks and decodes the answer into reply, unless that is nil. It returns the
// answer's bytes, too.
func (r *remote) call(ctx context.Context, ask request, reply any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	answer, err := r.open(ctx, ask)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Close() }() // read to its end, or given up
	body, err := io.ReadAll(io.LimitReader(answer, replyMax+1))
	if err != nil {
		return nil, coded(ExitUnreachable, err)
	}
	if len(body) > replyMax {
		return nil, failf(ExitRefused, "%s %s: more than %d bytes", ask.method, ask.path, replyMax)
	}
	if reply != nil {
		if err := json.Unmarshal(body, reply); err != nil {
			return nil, failf(ExitRefused, "%s %s: not the answer of a Doorbuster server: %w", ask.method, ask.path, err)
		}
	}
	return body, nil
}

// open asks, and returns the body of a good answer for the caller to read and
// close.
func (r *remote) open(ctx context.Context, ask request) (io.ReadCloser, error) {
	target := r.base.JoinPath(ask.path)
	if ask.query == nil {
		ask.query = url.Values{}
	}
	if r.merchant != "" {
		ask.query.Set("merchant_id", r.merchant)
	}
	target.RawQuery = ask.query.Encode()
	req, err := http.NewRequestWithContext(ctx, ask.method, target.String(), bytes.NewReader(ask.body))
	if err != nil {
		return nil, coded(ExitUsage, err)
	}
	if r.key != "" {
		req.Header.Set("Authorization", "Bearer "+r.key)
	}
	if ask.contentType == "" {
		ask.contentType = "application/json"
	}
	if len(ask.body) > 0 {
		req.Header.Set("Content-Type", ask.contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, failf(ExitUnreachable, "%w; --server or DOORBUSTER_SERVER names the server", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, replyMax))
	no := refusal(resp.StatusCode, text)
	if r.merchant == "" && resp.StatusCode == http.StatusBadRequest && strings.Contains(no.Error(), "merchant_id is required") {
		no = fmt.Errorf("%w; say whose rule it is with --merchant or %s", no, config.Env("merchant"))
	}
	if r.merchant == "" && (r.key == "" || strings.HasPrefix(r.key, "dbk_operator_")) && resp.StatusCode == http.StatusNotFound {
		no = fmt.Errorf("%w; without --merchant or %s it is looked for among the rules of the house", no, config.Env("merchant"))
	}
	if resp.StatusCode == http.StatusUnauthorized {
		no = fmt.Errorf("%w; say who you are with --key or %s", no, config.Env("key"))
	}
	return nil, coded(ExitRefused, errors.Join(no, err, resp.Body.Close()))
}

// refusal is a problem document as an error.
func refusal(status int, body []byte) error {
	var problem struct {
		Code, Title, Detail string
		Errors              []struct {
			Field, Message, Section string
			Offset                  int
		}
	}
	if err := json.Unmarshal(body, &problem); err != nil || problem.Code == "" {
		return fmt.Errorf("the server answers %d: %.200q", status, body)
	}
	detail := problem.Detail
	if detail == "" {
		detail = problem.Title
	}
	var text strings.Builder
	fmt.Fprintf(&text, "the server answers %d %s: %s", status, problem.Code, detail)
	for _, e := range problem.Errors {
		if detail == e.Field+" "+e.Message && e.Section == "" {
			continue // said already
		}
		if e.Section != "" {
			fmt.Fprintf(&text, "\n  %s section, offset %d: %s", e.Section, e.Offset, e.Message)
		} else {
			fmt.Fprintf(&text, "\n  %s %s", e.Field, e.Message)
		}
	}
	return errors.New(text.String())
}
