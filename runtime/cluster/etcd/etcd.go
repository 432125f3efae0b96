// Package etcd keeps the members of a cluster in etcd.
//
// A member's record is a key under a prefix, and the lease it hangs on is the
// member's: when it is not renewed in time, etcd deletes the record, and everybody
// sees the same. Who watches lists first and then watches from the revision of the
// list, so that nothing falls between; when etcd has forgotten that revision
// (compaction), the list is read again.
package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/doorbuster/doorbuster/runtime/cluster"
)

// Config says where etcd is.
type Config struct {
	// Endpoints are the URLs of etcd's servers. At least one is required.
	Endpoints []string
	// TLS is how to reach those with https. It may be nil.
	TLS *tls.Config
	// Username and Password are sent if Username is given.
	Username, Password string
	// Name keeps clusters apart that share an etcd: 1-63 bytes of a-z, 0-9 and -.
	// Default "doorbuster".
	Name string
	// Logger may be nil.
	Logger *slog.Logger
}

// An etcd that does not answer is found out by pings: its servers refuse those that
// come more often than once in 5 s.
const (
	pingEvery   = 5 * time.Second
	pingTimeout = 3 * time.Second
)

// A lease goes on when etcd is back, but only for as long as it is: who has waited long
// must not wait for much longer. gRPC's own backoff grows to two minutes.
var reconnecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
	MinConnectTimeout: time.Second,
}

// Registry implements cluster.Registry.
type Registry struct {
	client *clientv3.Client
	prefix string
	log    *slog.Logger

	// of the member that joined last
	key   string
	lease clientv3.LeaseID
}

// New makes a registry. It does not wait until etcd answers, unless with a Username,
// which etcd has to know.
func New(cfg Config) (*Registry, error) {
	name := cfg.Name
	if name == "" {
		name = "doorbuster"
	}
	if len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("etcd: the cluster's name %q is not 1-63 of a-z, 0-9 and -", name)
	}
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("etcd: Endpoints are required")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		DialOptions:       []grpc.DialOption{grpc.WithConnectParams(reconnecting)},
		DialTimeout:       pingTimeout, // of the exchange of the password for a token
		DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout,
		Logger: zap.NewNop(), // what goes wrong is returned
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registry{client: client, prefix: "/" + name + "/members/", log: log}, nil
}

// Members returns the records as they are. It asks once.
func (r *Registry) Members(ctx context.Context) ([]cluster.Member, error) {
	members, _, err := r.list(ctx)
	return slices.Collect(maps.Values(members)), err
}

func (r *Registry) list(ctx context.Context) (members map[string]cluster.Member, revision int64, err error) {
	list, err := r.client.Get(ctx, r.prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("etcd: listing: %w", err)
	}
	members = map[string]cluster.Member{}
	for _, kv := range list.Kvs {
		r.put(members, kv.Key, kv.Value)
	}
	return members, list.Header.Revision, nil
}

// Join writes the record of a member, under a lease of its own.
func (r *Registry) Join(ctx context.Context, m cluster.Member, ttl time.Duration) error {
	record, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	seconds := int64((ttl + time.Second - 1) / time.Second)
	lease, err := r.client.Grant(ctx, seconds)
	if err != nil {
		return fmt.Errorf("etcd: granting a lease: %w", err)
	}
	r.key, r.lease = r.prefix+m.ID, lease.ID
	if _, err := r.client.Put(ctx, r.key, string(record), clientv3.WithLease(lease.ID)); err != nil {
		return fmt.Errorf("etcd: writing the record: %w", err)
	}
	return nil
}

// Update replaces the record, if it is still there.
func (r *Registry) Update(ctx context.Context, m cluster.Member) error {
	record, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	got, err := r.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(r.key), ">", 0)).
		Then(clientv3.OpPut(r.key, string(record), clientv3.WithLease(r.lease))).
		Commit()
	if err != nil {
		return fmt.Errorf("etcd: writing the record: %w", lost(err))
	}
	if !got.Succeeded {
		return fmt.Errorf("etcd: %w: there is no record", cluster.ErrLost)
	}
	return nil
}

// Renew asks for one more TTL. The client's own KeepAliveOnce tries again without a
// pause as long as etcd refuses connections.
func (r *Registry) Renew(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := pb.NewLeaseClient(r.client.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(r.lease)})
	}
	if err != nil {
		return fmt.Errorf("etcd: renewing the lease: %w", err)
	}
	got, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("etcd: renewing the lease: %w", lost(err))
	}
	if got.TTL <= 0 {
		return fmt.Errorf("etcd: %w", cluster.ErrLost)
	}
	return nil
}

// lost is err, marked if it says that the lease is over.
func lost(err error) error {
	if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: %w", cluster.ErrLost, err)
	}
	return err
}

// Leave revokes the lease, and the record goes with it.
func (r *Registry) Leave(ctx context.Context) error {
	if r.lease == clientv3.NoLease {
		return nil
	}
	if _, err := r.client.Revoke(ctx, r.lease); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("etcd: revoking the lease: %w", err)
	}
	return nil
}

// Watch lists the records and then follows them.
func (r *Registry) Watch(ctx context.Context, changed func([]cluster.Member)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx)) // ends the watch
	defer cancel()
	members, revision, err := r.list(ctx)
	if err != nil {
		return err
	}
	changed(slices.Collect(maps.Values(members)))
	for got := range r.client.Watch(ctx, r.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := got.Err(); err != nil {
			return fmt.Errorf("etcd: watching: %w", err)
		}
		for _, e := range got.Events {
			if e.Type == clientv3.EventTypeDelete {
				delete(members, string(e.Kv.Key))
			} else {
				r.put(members, e.Kv.Key, e.Kv.Value)
			}
		}
		changed(slices.Collect(maps.Values(members)))
	}
	return fmt.Errorf("etcd: watching: %w", context.Cause(ctx))
}

func (r *Registry) put(members map[string]cluster.Member, key, record []byte) {
	var m cluster.Member
	if err := json.Unmarshal(record, &m); err != nil || r.prefix+m.ID != string(key) {
		r.log.Warn("etcd: not a member's record", slog.String("key", string(key)))
		delete(members, string(key))
		return
	}
	members[string(key)] = m
}

// Close ends the connections.
func (r *Registry) Close() error { return r.client.Close() }
