package gateway

import (
	"encoding/base64"
	"strconv"

	"github.com/doorbuster/doorbuster/actors/deal"
)

// Pages of a list.
const (
	pageDefault = 50
	pageMax     = 200
	cursorMax   = 256 // bytes of a cursor as it travels
)

// page is the envelope of every list.
type page[T any] struct {
	Data       []T    `json:"data"`
	HasMore    bool   `json:"has_more"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// newPage never shows a null for an empty list.
func newPage[T any](data []T, more bool, cursor string) page[T] {
	p := page[T]{Data: data, HasMore: more}
	if p.Data == nil {
		p.Data = []T{}
	}
	if more {
		p.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(cursor))
	}
	return p
}

// limit reads ?limit=.
func (c *call) limit() (int, error) {
	text := c.query("limit")
	if text == "" {
		return pageDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > pageMax {
		return 0, refuseField(invalidRequest, "limit", "must be 1 to "+strconv.Itoa(pageMax))
	}
	return n, nil
}

// cursor reads ?cursor=: what newPage was given for the page before.
func (c *call) cursor() (string, error) {
	text := c.query("cursor")
	cursor, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > cursorMax {
		return "", errBadCursor
	}
	return string(cursor), nil
}

// cursorID is cursor for a list whose pages end with an identifier.
func (c *call) cursorID() (string, error) {
	id, err := c.cursor()
	if err == nil && id != "" && !deal.ValidID(id) {
		err = errBadCursor
	}
	return id, err
}

var errBadCursor = refuseField(invalidRequest, "cursor", "must be the next_cursor of the page before")

func (c *call) query(name string) string { return string(c.ctx.QueryArgs().Peek(name)) }

// queryFlag reads a parameter that must be true, false or absent, which is false.
func (c *call) queryFlag(name string) (bool, error) {
	switch c.query(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, refuseField(invalidRequest, name, "must be true or false")
}

// queryID reads a parameter that must be an identifier or absent.
func (c *call) queryID(name string) (string, error) {
	id := c.query(name)
	if id != "" && !deal.ValidID(id) {
		return "", refuseField(invalidRequest, name, "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return id, nil
}
