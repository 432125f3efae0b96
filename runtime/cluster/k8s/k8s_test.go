package k8s_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/clustertest"
	"github.com/doorbuster/doorbuster/runtime/cluster/k8s"
	"github.com/doorbuster/doorbuster/runtime/cluster/registrytest"
)

func TestMain(m *testing.M) {
	clustertest.Tolerate()
	goleak.VerifyTestMain(m)
}

const (
	leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
	token  = "who-i-am"
)

// object is a Lease as the fake keeps it.
type object = map[string]any

// apiServer is as much of Kubernetes' API as concerns Leases.
type apiServer struct {
	*httptest.Server
	token string // file

	mu      sync.Mutex
	down    bool
	version int
	oldest  int // changes up to here are forgotten
	objects map[string]object
	changes []change
	news    chan struct{} // closed with the next change, and when watches are to end
	ends    int           // how often watches were ended
	reject  string        // method that is answered with 500
	renews  string        // name of a Lease that is renewed just before anybody deletes it
	kept    int           // how often that was
}

type change struct {
	version int
	kind    string
	object  json.RawMessage
}

func newServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{objects: map[string]object{}, news: make(chan struct{}), token: filepath.Join(t.TempDir(), "token")}
	if err := os.WriteFile(s.token, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *apiServer) open(t testing.TB) cluster.Registry {
	t.Helper()
	r, err := k8s.New(k8s.Config{Clock: registrytest.Clock(t), Server: s.URL, Namespace: "shop", TokenFile: s.token})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, leases)
	name = strings.TrimPrefix(name, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down || r.Method == s.reject:
		refuse(w, http.StatusInternalServerError, "etcd is away")
	case !ok || r.Header.Get("Authorization") != "Bearer "+token:
		refuse(w, http.StatusForbidden, r.URL.Path)
	case r.Method == http.MethodGet && name == "" && r.URL.Query().Get("labelSelector") != "doorbuster/cluster=doorbuster":
		refuse(w, http.StatusBadRequest, "whose Leases?")
	case r.Method == http.MethodGet && name == "" && r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	case r.Method == http.MethodGet && name == "":
		answer(w, object{"metadata": object{"resourceVersion": strconv.Itoa(s.version)}, "items": slices.Collect(maps.Values(s.objects))})
	case r.Method == http.MethodPost && name == "":
		s.create(w, r)
	case s.objects[name] == nil:
		refuse(w, http.StatusNotFound, name)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/merge-patch+json":
		merge(s.objects[name], decode(r))
		s.changed("MODIFIED", s.objects[name])
		answer(w, s.objects[name])
	case r.Method == http.MethodDelete:
		s.remove(w, r, name)
	default:
		refuse(w, http.StatusMethodNotAllowed, r.Method)
	}
}

func (s *apiServer) create(w http.ResponseWriter, r *http.Request) {
	o := decode(r)
	meta := o["metadata"].(object)
	name := meta["name"].(string)
	if s.objects[name] != nil {
		refuse(w, http.StatusConflict, name)
		return
	}
	meta["uid"] = "uid of " + name
	s.objects[name] = o
	s.changed("ADDED", o)
	answer(w, o)
}

func (s *apiServer) remove(w http.ResponseWriter, r *http.Request, name string) {
	o := s.objects[name]
	if name == s.renews { // who watches is not told
		s.version++
		o["metadata"].(object)["resourceVersion"] = strconv.Itoa(s.version)
		s.kept++
	}
	if conditions, ok := decode(r)["preconditions"].(object); ok {
		meta := o["metadata"].(object)
		if meta["resourceVersion"] != conditions["resourceVersion"] || meta["uid"] != conditions["uid"] {
			refuse(w, http.StatusConflict, "the precondition does not hold")
			return
		}
	}
	delete(s.objects, name)
	s.changed("DELETED", o)
	answer(w, o)
}

// changed counts and tells a change.
func (s *apiServer) changed(kind string, o object) {
	s.version++
	o["metadata"].(object)["resourceVersion"] = strconv.Itoa(s.version)
	encoded, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	s.changes = append(s.changes, change{s.version, kind, encoded})
	s.wake()
}

func (s *apiServer) wake() {
	close(s.news)
	s.news = make(chan struct{})
}

// watch tells of changes after a version until the watches are ended. mu is held but
// for the time in which it waits.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "from when?")
		return
	}
	if from < s.oldest {
		// It is told within the watch.
		answer(w, object{"type": "ERROR", "object": object{"kind": "Status", "code": http.StatusGone, "reason": "Expired"}})
		return
	}
	for ends := s.ends; ends == s.ends; {
		for _, c := range s.changes {
			if c.version > from {
				answer(w, object{"type": c.kind, "object": c.object})
				from = c.version
			}
		}
		http.NewResponseController(w).Flush()
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-r.Context().Done():
		}
		s.mu.Lock()
		if r.Context().Err() != nil {
			return
		}
	}
}

// endWatches ends them as the API does now and then.
func (s *apiServer) endWatches() {
	s.ends++
	s.wake()
}

// set changes the server while nobody asks it.
func (s *apiServer) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// merge is RFC 7396, without removal.
func merge(into, change object) {
	for key, value := range change {
		if nested, ok := value.(object); ok && into[key] != nil {
			merge(into[key].(object), nested)
		} else {
			into[key] = value
		}
	}
}

func decode(r *http.Request) object {
	var o object
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &o)
	return o
}

func answer(w io.Writer, o any) { _ = json.NewEncoder(w).Encode(o) }

func refuse(w http.ResponseWriter, status int, why string) {
	w.WriteHeader(status)
	answer(w, object{"kind": "Status", "code": status, "message": why})
}

func TestMembers(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	registrytest.Run(t, func(t testing.TB, _ []string) cluster.Registry { return server.open(t) })
}

func TestRecords(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	registrytest.Records(t, server.open)
}

// ttl is the lease of the nodes that start starts: one that stands still for a quarter of
// it while the API is away may lose it.
const ttl = registrytest.Lasting

func start(t *testing.T, server *apiServer, nodes int) (members []*registrytest.Node, addresses []string) {
	t.Helper()
	for range nodes {
		address := registrytest.Address(t)
		addresses = append(addresses, address)
		members = append(members, registrytest.Start(t, address, server.open(t), registrytest.Lasts))
	}
	for _, n := range members {
		n.Sees(t, addresses...)
	}
	return members, addresses
}

// The API may be away for as long as it likes, or take no renewals: nobody counts it
// against anybody.
func TestAway(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*apiServer){
		"down":        func(s *apiServer) { s.down = true; s.endWatches() },
		"no renewals": func(s *apiServer) { s.reject = http.MethodPatch },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t)
			members, addresses := start(t, server, 3)
			server.set(func() { fault(server) })
			time.Sleep(ttl + ttl/4)
			server.set(func() { server.down, server.reject = false, "" })
			late := registrytest.Start(t, registrytest.Address(t), server.open(t), registrytest.Lasts)
			for _, n := range members {
				n.Sees(t, append(addresses, late.Address)...)
				if n.Losses() > 0 {
					t.Errorf("%s lost a lease that nobody could renew", n.Address)
				}
			}
		})
	}
}

// A watch that ends goes on where it was; one that is too late begins with the list.
func TestWatchesEnd(t *testing.T) {
	t.Parallel()
	for name, forgotten := range map[string]bool{"and go on": false, "410 Gone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t)
			members, addresses := start(t, server, 2)
			ghost := server.open(t)
			t.Cleanup(func() { ghost.Close() })
			server.set(func() {
				server.endWatches()
				if forgotten {
					server.oldest = server.version + 1 // the next change is forgotten at once
				}
			})
			if err := ghost.Join(t.Context(), cluster.Member{ID: "1", Address: "ghost:1"}, time.Minute); err != nil {
				t.Fatal(err)
			}
			server.set(func() { server.oldest = min(server.oldest, server.version) })
			for _, n := range members {
				n.Sees(t, append(addresses, "ghost:1")...)
			}
			if err := ghost.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, n := range members {
				n.Sees(t, addresses...)
				if n.Losses() > 0 {
					t.Errorf("%s was lost", n.Address)
				}
			}
		})
	}
}

// A watcher that missed a renewal cannot delete a live member.
func TestConflict(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	server.renews = "doorbuster-1"
	quiet := server.open(t)
	t.Cleanup(func() { quiet.Close() })
	if err := quiet.Join(t.Context(), cluster.Member{ID: "1", Address: "quiet:1"}, registrytest.TTL); err != nil {
		t.Fatal(err)
	}
	n := registrytest.Start(t, registrytest.Address(t), server.open(t))
	n.Sees(t, n.Address, "quiet:1")
	for kept, end := 0, time.Now().Add(registrytest.Patience); kept < 2; time.Sleep(time.Millisecond) {
		server.set(func() { kept = server.kept })
		if time.Now().After(end) {
			t.Fatalf("nobody has missed it, and tried to delete it %d times", kept)
		}
	}
	if err := quiet.Renew(t.Context()); err != nil {
		t.Errorf("a member that renewed all the time was deleted: %v", err)
	}
}

// Whoever deletes a Lease ends a membership.
func TestDeleted(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	members, addresses := start(t, server, 2)
	look := server.open(t).(*k8s.Registry)
	defer look.Close()
	if n, err := look.Members(t.Context()); err != nil || n != 2 {
		t.Errorf("%d members, %v", n, err)
	}
	victim, id := members[0], members[0].ID()
	server.set(func() {
		o := server.objects["doorbuster-"+id]
		delete(server.objects, "doorbuster-"+id)
		server.changed("DELETED", o)
	})
	victim.Await(t, "its next life", func(*cluster.Topology) bool { return victim.Losses() == 1 && victim.ID() != "" && victim.ID() != id })
	members[1].Sees(t, addresses...)
}

func TestConfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	clock := registrytest.Clock(t)
	for name, cfg := range map[string]k8s.Config{
		"no clock":       {Server: "http://127.0.0.1:1", Namespace: "shop"},
		"no pod":         {Clock: clock, Namespace: "shop"},
		"no namespace":   {Clock: clock, Server: "http://127.0.0.1:1"},
		"no certificate": {Clock: clock, Server: "http://127.0.0.1:1", Namespace: "shop", CAFile: os.DevNull},
		"a bad name":     {Clock: clock, Server: "http://127.0.0.1:1", Namespace: "shop", Name: "Shop"},
		"a worse name":   {Clock: clock, Server: "http://127.0.0.1:1", Namespace: "shop", Name: "shop-"},
	} {
		if _, err := k8s.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	server := newServer(t)
	stranger, err := k8s.New(k8s.Config{Clock: clock, Server: server.URL, Namespace: "elsewhere", TokenFile: server.token})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Join(context.Background(), cluster.Member{ID: "1"}, time.Second); err == nil || !strings.Contains(err.Error(), fmt.Sprint(http.StatusForbidden)) {
		t.Errorf("refused, and told %v", err)
	}
}
