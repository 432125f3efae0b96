// Package k8s keeps the members of a cluster in Kubernetes, as Lease objects.
//
// A member's record is a Lease of its own, with the record in an annotation. Nothing
// in Kubernetes deletes one that is not renewed, so the members do: who has not seen a
// Lease change for its duration deletes it, on condition that it is still the version
// that was seen. Thus everybody agrees on who is gone, that one included, whatever
// the clocks say. A node that hears nothing at all, not even of its own renewals,
// counts against nobody.
//
// The account needs get, list, watch, create, patch and delete on leases in its
// namespace.
package k8s

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
)

// Config says how to reach the API. What is left empty is what a pod is given. Clock is
// required.
type Config struct {
	// Clock says when a member has been silent for too long, and dates the renewals for
	// people to read.
	Clock *clockd.Clock
	// Name keeps clusters apart that share a namespace: 1-40 bytes of a-z, 0-9 and -,
	// beginning and ending with a letter or a digit. Default "doorbuster".
	Name string
	// Server is the API's URL.
	Server string
	// Namespace is where the Leases are.
	Namespace string
	// TokenFile holds the account's token. It is read for each request: tokens are renewed.
	TokenFile string
	// CAFile holds the certificates that the API's may be signed with.
	CAFile string
	// Logger may be nil.
	Logger *slog.Logger
}

const (
	nameMax     = 40
	labelKey    = "doorbuster/cluster"
	recordKey   = "doorbuster/member"
	microTime   = "2006-01-02T15:04:05.000000Z07:00"
	answerBytes = 8 << 20 // of a list: some thousand members
)

// Registry implements cluster.Registry.
type Registry struct {
	api   api
	name  string
	clock *clockd.Clock
	log   *slog.Logger

	// of the member that joined last
	lease string
	ttl   time.Duration
}

// New makes a registry. It does not wait until the API answers.
func New(cfg Config) (*Registry, error) {
	name := cmp.Or(cfg.Name, "doorbuster")
	if len(name) > nameMax || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(name, "-") != name {
		return nil, fmt.Errorf("k8s: the cluster's name %q is not 1-%d of a-z, 0-9 and, within, -", name, nameMax)
	}
	if cfg.Clock == nil {
		return nil, errors.New("k8s: Clock is required")
	}
	a, err := newAPI(&cfg)
	if err != nil {
		return nil, fmt.Errorf("k8s: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registry{api: a, name: name, clock: cfg.Clock, log: log}, nil
}

// The parts of Kubernetes' objects that are used here.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
type (
	lease struct {
		APIVersion string   `json:"apiVersion,omitempty"`
		Kind       string   `json:"kind,omitempty"`
		Metadata   metadata `json:"metadata,omitzero"`
		Spec       spec     `json:"spec,omitzero"`
	}
	metadata struct {
		Name            string            `json:"name,omitempty"`
		UID             string            `json:"uid,omitempty"`
		ResourceVersion string            `json:"resourceVersion,omitempty"`
		Labels          map[string]string `json:"labels,omitempty"`
		Annotations     map[string]string `json:"annotations,omitempty"`
	}
	spec struct {
		HolderIdentity       string `json:"holderIdentity,omitempty"`
		LeaseDurationSeconds int64  `json:"leaseDurationSeconds,omitempty"`
		AcquireTime          string `json:"acquireTime,omitempty"`
		RenewTime            string `json:"renewTime,omitempty"`
	}
	leaseList struct {
		Metadata metadata `json:"metadata"`
		Items    []lease  `json:"items"`
	}
	preconditions struct {
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
	}
	deleteOptions struct {
		APIVersion    string        `json:"apiVersion"`
		Kind          string        `json:"kind"`
		Preconditions preconditions `json:"preconditions"`
	}
)

// Members returns how many Leases of members there are. It asks once.
func (r *Registry) Members(ctx context.Context) (int, error) {
	var list leaseList
	err := r.api.do(ctx, http.MethodGet, "", r.selector(), nil, &list)
	return len(list.Items), wrap("listing", err)
}

// Join creates the Lease of a member.
func (r *Registry) Join(ctx context.Context, m cluster.Member, ttl time.Duration) error {
	record, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("k8s: %w", err)
	}
	r.lease, r.ttl = r.name+"-"+m.ID, ttl
	now := r.now()
	err = r.api.do(ctx, http.MethodPost, "", nil, &lease{
		APIVersion: "coordination.k8s.io/v1", Kind: "Lease",
		Metadata: metadata{Name: r.lease, Labels: map[string]string{labelKey: r.name}, Annotations: map[string]string{recordKey: string(record)}},
		Spec:     spec{HolderIdentity: m.ID, LeaseDurationSeconds: int64((ttl + time.Second - 1) / time.Second), AcquireTime: now, RenewTime: now},
	}, nil)
	return wrap("creating the Lease", err)
}

func (r *Registry) now() string {
	return time.UnixMilli(r.clock.Now().Wall).UTC().Format(microTime)
}

// Update replaces the record.
func (r *Registry) Update(ctx context.Context, m cluster.Member) error {
	record, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("k8s: %w", err)
	}
	return r.patch(ctx, &lease{Metadata: metadata{Annotations: map[string]string{recordKey: string(record)}}, Spec: spec{RenewTime: r.now()}})
}

// Renew changes the Lease, which is what the others look for.
func (r *Registry) Renew(ctx context.Context) error {
	return r.patch(ctx, &lease{Spec: spec{RenewTime: r.now()}})
}

func (r *Registry) patch(ctx context.Context, change *lease) error {
	err := r.api.do(ctx, http.MethodPatch, r.lease, nil, change, nil)
	if isStatus(err, http.StatusNotFound) {
		err = cluster.ErrLost
	}
	return wrap("renewing the Lease", err)
}

// Leave deletes the Lease.
func (r *Registry) Leave(ctx context.Context) error {
	if r.lease == "" {
		return nil
	}
	err := r.api.do(ctx, http.MethodDelete, r.lease, nil, nil, nil)
	if isStatus(err, http.StatusNotFound) {
		err = nil
	}
	return wrap("deleting the Lease", err)
}

// Close gives back the connections.
func (r *Registry) Close() error {
	r.api.client.CloseIdleConnections()
	return nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("k8s: %s: %w", doing, err)
}

// do calls the API about a Lease, or about all of them if name is empty, and reads its
// answer into out, which may be nil.
func (a *api) do(ctx context.Context, method, name string, query url.Values, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	resp, err := a.send(ctx, method, name, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, answerBytes)) // so that the connection is used again
		return err
	}
	return json.NewDecoder(io.LimitReader(resp.Body, answerBytes)).Decode(out)
}
