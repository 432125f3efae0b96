package gateway

import (
	"crypto/rand"
	"errors"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// webhookBody is the body of a request to make or replace a webhook.
type webhookBody struct {
	MerchantID string   `json:"merchant_id"`
	URL        string   `json:"url"`
	Events     []string `json:"events"`
	Secret     string   `json:"secret"`
}

// webhookReply is a webhook as it is shown. The secret is shown once, and only if
// it was made here.
type webhookReply struct {
	ID           string   `json:"webhook_id"`
	MerchantID   string   `json:"merchant_id"`
	URL          string   `json:"url"`
	Events       []string `json:"events"`
	Secret       string   `json:"secret,omitempty"`
	Status       string   `json:"status"`
	CreatedAt    instant  `json:"created_at"`
	FailingSince *instant `json:"failing_since,omitempty"`
	DisabledAt   *instant `json:"disabled_at,omitempty"`
	LastError    string   `json:"last_error,omitempty"`
}

func newWebhookReply(h *webhook.Hook) webhookReply {
	r := webhookReply{
		ID: h.ID, MerchantID: h.Merchant, URL: h.URL, Events: h.Events, Status: "active",
		CreatedAt: instant(h.CreatedAt), LastError: h.LastError,
	}
	if h.FailingSince != 0 {
		r.Status, r.FailingSince = "failing", (*instant)(&h.FailingSince)
	}
	if h.DisabledAt != 0 {
		r.Status, r.DisabledAt = "disabled", (*instant)(&h.DisabledAt)
	}
	return r
}

// webhookOf returns whose webhook the path names. The merchant may stand in the body.
func (s *Server) webhookOf(c *call, inBody string) (owner, id string, err error) {
	if s.cfg.Webhooks == nil {
		return "", "", refuse(unavailable, "this node delivers to no webhooks")
	}
	owner, err = c.writerOf(inBody)
	if err == nil && !deal.ValidID(c.params[0]) {
		err = refuseField(invalidRequest, "id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return owner, string(c.params[0]), err
}

func (s *Server) getWebhook(c *call) error {
	owner, id, err := s.webhookOf(c, "")
	if err != nil {
		return err
	}
	hook, err := s.cfg.Webhooks.Get(owner, id)
	if err != nil {
		return asWebhookRefusal(err)
	}
	return c.reply(fasthttp.StatusOK, newWebhookReply(&hook))
}

func (s *Server) putWebhook(c *call) error {
	var body webhookBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	owner, id, err := s.webhookOf(c, body.MerchantID)
	if err != nil {
		return err
	}
	hook := webhook.Hook{Merchant: owner, ID: id, URL: body.URL, Events: body.Events, Secret: body.Secret}
	if hook.Secret == "" {
		hook.Secret = rand.Text()
	}
	created, err := s.cfg.Webhooks.Put(s.ctx, hook)
	if err != nil {
		return asWebhookRefusal(err)
	}
	status := fasthttp.StatusOK
	if created {
		status = fasthttp.StatusCreated
	}
	if made, err := s.cfg.Webhooks.Get(owner, id); err == nil { // unless it was deleted at once
		hook = made
	}
	answer := newWebhookReply(&hook)
	if body.Secret == "" {
		answer.Secret = hook.Secret
		c.ctx.Response.Header.Set("Cache-Control", "no-store")
	}
	return c.reply(status, answer)
}

func (s *Server) deleteWebhook(c *call) error {
	owner, id, err := s.webhookOf(c, "")
	if err != nil {
		return err
	}
	if err := s.cfg.Webhooks.Delete(s.ctx, owner, id); err != nil {
		return asWebhookRefusal(err)
	}
	c.ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}

func asWebhookRefusal(err error) error {
	var field *webhook.FieldError
	switch {
	case errors.As(err, &field):
		return refuseField(invalidRequest, field.Field, field.Message)
	case errors.Is(err, webhook.ErrNotFound):
		return refuse(notFound, "there is no such webhook")
	case errors.Is(err, webhook.ErrTooMany):
		return refuse(invalidRequest, "there are as many webhooks as may be: delete one")
	}
	return err
}
