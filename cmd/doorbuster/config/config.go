// Package config is what an operator can set, and where it is set.
//
// Flags holds the one table: each row is a flag, and from its name follow its
// environment variable and its key in the YAML file:
//
//	--max-in-flight   DOORBUSTER_MAX_IN_FLIGHT   max_in_flight
//
// A flag beats the environment, which beats the file, which beats the default.
// A key in the file or a DOORBUSTER_ variable that no row knows is an error. The
// variables that Kubernetes gives every container as soon as there is a service of
// that name, like DOORBUSTER_SERVICE_HOST, are not meant for us, and those of the
// rule commands, which a merchant may have exported, not for a server.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/doorbuster/doorbuster/runtime/own"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "DOORBUSTER_"

// Bounds of what can be set.
const (
	// FileMax is the largest configuration file in bytes.
	FileMax = 1 << 20
	// InFlightMax bounds the orders in flight on a node: each has a seat of
	// some KiB that is allocated at the start.
	InFlightMax = own.SeatsMax
	// RateMax bounds what one caller may be allowed.
	RateMax = 1_000_000
	// DurationMax bounds every duration.
	DurationMax = 24 * time.Hour
)

// secret marks the flags whose value Print hides.
const secret = "secret"

// How callers prove who they are.
const (
	AuthOpen = "open" // the caller is believed; on loopback only
	AuthKeys = "keys" // API keys, and JWTs for shoppers
)

// Where the nodes of a cluster find each other.
const (
	ProviderEtcd   = "etcd"
	ProviderK8s    = "k8s"    // Lease objects of the namespace that the pod runs in
	ProviderStatic = "static" // a list of addresses
)

// Config is the effective configuration of a server.
type Config struct {
	Listen            string        // host:port of the API
	Admin             string        // host:port for operators
	Data              string        // folder of the journal, and of what can be made again
	Postgres          []string      // connection strings of servers that keep the journal together instead; secret
	Migrate           bool          // bring its schema up to date first
	StockGuard        string        // Redis that may refuse what the journal would take; empty = none; secret
	StockGuardStrict  bool          // refuse what takes stock while that does not answer
	Cluster           bool          // one of several nodes over that server
	Advertise         string        // host:port by which the other nodes reach this one
	Provider          string        // ProviderEtcd, ProviderK8s or ProviderStatic
	Etcd              string        // URLs of etcd's servers, by commas
	EtcdCA            string        // file of the authority of etcd's servers; empty = the system's
	EtcdCert          string        // file of the certificate that etcd asks for; empty = none
	EtcdKey           string        // file of its key
	EtcdUser          string        // user of etcd; empty = none
	EtcdPassword      string        // and the password; secret
	Peers             string        // host:port of all nodes, by commas, for ProviderStatic
	ClusterTLSCA      string        // file of the nodes' authority; without TLS, nodes are on loopback
	ClusterTLSCert    string        // file of this node's certificate
	ClusterTLSKey     string        // file of its key
	ClusterNames      string        // names in the certificates of nodes, by commas
	Auth              string        // AuthOpen, AuthKeys, or empty: open if all listeners are on loopback
	JWKS              string        // file with the public keys of shoppers' tokens; empty = no shoppers' tokens
	PassivateAfter    time.Duration // an idle deal leaves memory
	MaxInFlight       int           // orders on this node
	MaxInFlightByDeal int           // orders of one deal
	RateLimit         int           // requests a second that one caller may make; 0 = any number
	RateBurst         int           // requests at once after a rest
	BacktestCPU       int           // per cent of one core for all evaluations together that no order waits for
	RequestTimeout    time.Duration // then 504
	DrainTimeout      time.Duration // for what is in flight at the end
	DrainNotice       time.Duration // to go on answering that it is at the end, within DrainTimeout
	WebhookNetworks   string        // CIDRs, separated by commas, that webhooks may reach although they are private
	Key               string        // an operator's, for commands that ask a running server; secret
	Channels          string        // values of an order's attribute channel that metrics tell apart, by commas
	TraceEndpoint     string        // URL of an OTLP/HTTP collector; empty = no traces
	TraceSample       float64       // share of the orders that are traced
	TraceTrust        bool          // callers decide by their traceparent instead
	LogLevel          string        // debug, info, warn, error
	LogFormat         string        // text, json
}

// Default is the configuration of a server that was told nothing. Deeper queues
// than these make orders later, not more; four fifths of a deal's are for new
// orders, so 400 connections that all want one deal find room.
func Default() Config {
	return Config{
		Listen:            "127.0.0.1:8080",
		Admin:             "127.0.0.1:9090",
		Data:              "data",
		Provider:          ProviderEtcd,
		PassivateAfter:    5 * time.Minute,
		MaxInFlight:       1024,
		MaxInFlightByDeal: 512,
		RateBurst:         100,
		BacktestCPU:       25,
		RequestTimeout:    5 * time.Second,
		DrainTimeout:      10 * time.Second,
		DrainNotice:       time.Second,
		Channels:          "app,web,mini_program,store",
		TraceSample:       0.001,
		LogLevel:          "info",
		LogFormat:         "text",
	}
}

// Flags returns the table of settings. Parsing it, or Load, writes to c.
func (c *Config) Flags() *pflag.FlagSet {
	t := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	t.SortFlags = false
	t.StringVar(&c.Listen, "listen", c.Listen, "address of the API")
	t.StringVar(&c.Admin, "admin", c.Admin, "address of metrics, profiles and operator routes")
	t.StringVar(&c.Data, "data", c.Data, "folder of the journal")
	t.Var((*servers)(&c.Postgres), "postgres", "PostgreSQL server that keeps the journal instead, as postgres://user:password@host/database; given several times, in an order that never changes, they keep it together")
	t.BoolVar(&c.Migrate, "migrate", c.Migrate, "bring the schema of that server up to date before anything else")
	t.StringVar(&c.StockGuard, "stock-guard", c.StockGuard, "Redis that may refuse what the journal would take, as redis://user:password@host:6379 (default: none)")
	t.BoolVar(&c.StockGuardStrict, "stock-guard-strict", c.StockGuardStrict, "refuse new orders while that Redis does not answer, instead of going on without it")
	t.BoolVar(&c.Cluster, "cluster", c.Cluster, "be one of several nodes that share that server")
	t.StringVar(&c.Advertise, "advertise", c.Advertise, "address by which the other nodes of the cluster reach this one, and on which it listens for them")
	t.StringVar(&c.Provider, "provider", c.Provider, "where nodes find each other: etcd, k8s or static")
	t.StringVar(&c.Etcd, "etcd", c.Etcd, "URLs of etcd's servers, by commas, for --provider etcd")
	t.StringVar(&c.EtcdCA, "etcd-ca", c.EtcdCA, "file of the authority that signs the certificates of etcd's servers (default: the system's)")
	t.StringVar(&c.EtcdCert, "etcd-cert", c.EtcdCert, "file of the certificate by which etcd knows its clients (default: none)")
	t.StringVar(&c.EtcdKey, "etcd-key", c.EtcdKey, "file of its key")
	t.StringVar(&c.EtcdUser, "etcd-user", c.EtcdUser, "user of etcd (default: none)")
	t.StringVar(&c.EtcdPassword, "etcd-password", c.EtcdPassword, "and the password, better put into the environment or the file")
	t.StringVar(&c.Peers, "peers", c.Peers, "addresses of all nodes, by commas, for --provider static")
	t.StringVar(&c.ClusterTLSCA, "cluster-tls-ca", c.ClusterTLSCA, "file of the authority that signs the nodes' certificates (default: no TLS, for nodes on loopback only)")
	t.StringVar(&c.ClusterTLSCert, "cluster-tls-cert", c.ClusterTLSCert, "file of this node's certificate")
	t.StringVar(&c.ClusterTLSKey, "cluster-tls-key", c.ClusterTLSKey, "file of its key")
	t.StringVar(&c.ClusterNames, "cluster-names", c.ClusterNames, "DNS names in nodes' certificates that are accepted, by commas")
	t.StringVar(&c.Auth, "auth", c.Auth, "who may call: open or keys (default: open if all listeners are on loopback, else keys)")
	t.StringVar(&c.JWKS, "jwks", c.JWKS, "JWKS file with the public keys of shoppers' tokens")
	t.DurationVar(&c.PassivateAfter, "passivate-after", c.PassivateAfter, "how long a deal may be idle before it leaves memory")
	t.IntVar(&c.MaxInFlight, "max-in-flight", c.MaxInFlight, "orders in flight on this node; beyond it 503")
	t.IntVar(&c.MaxInFlightByDeal, "max-in-flight-per-deal", c.MaxInFlightByDeal, "orders in flight for one deal; beyond it 503")
	t.IntVar(&c.RateLimit, "rate-limit", c.RateLimit, "requests a second that one caller may make, beyond it 429; 0 = any number")
	t.IntVar(&c.RateBurst, "rate-burst", c.RateBurst, "requests that a caller may make at once after a rest")
	t.IntVar(&c.BacktestCPU, "backtest-cpu", c.BacktestCPU, "per cent of one core that backtests, explanations and sample evaluations may use together")
	t.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "how long a request may take before it is answered with 504")
	t.DurationVar(&c.DrainTimeout, "drain-timeout", c.DrainTimeout, "how long requests in flight may take to finish at the end")
	t.DurationVar(&c.DrainNotice, "drain-notice", c.DrainNotice, "how long to go on answering with 503 draining at least, so that balancers see it")
	t.StringVar(&c.WebhookNetworks, "webhook-networks", c.WebhookNetworks, "private networks that webhooks may reach, such as 10.1.0.0/16,fd00::/64 (default: none)")
	t.StringVar(&c.Channels, "channels", c.Channels, "values of an order's attribute \"channel\" that metrics tell apart, by commas; the rest is \"other\"")
	t.StringVar(&c.TraceEndpoint, "trace-endpoint", c.TraceEndpoint, "URL of an OTLP/HTTP collector that gets traces of orders, such as http://127.0.0.1:4318 (default: none)")
	t.Float64Var(&c.TraceSample, "trace-sample", c.TraceSample, "share of the orders that are traced, 0 to 1")
	t.BoolVar(&c.TraceTrust, "trace-trust", c.TraceTrust, "join the trace of a caller that sends a traceparent, and let it decide; for callers of your own only")
	t.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	t.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
	t.StringVar(&c.Key, "key", c.Key, "operator's key, for commands that ask a running server")
	for _, name := range []string{"postgres", "stock-guard", "etcd-password", "key"} {
		t.Lookup(name).Annotations = map[string][]string{secret: nil}
	}
	return t
}

// servers are connection strings, each a URL or libpq's key=value. A flag names one, and
// may be given several times; URLs may also stand together, with spaces in between. An
// empty one takes back those before it.
type servers []string

// Set implements pflag.Value.
func (s *servers) Set(text string) error {
	switch {
	case text == "":
		*s = nil
	case strings.HasPrefix(text, "postgres://"), strings.HasPrefix(text, "postgresql://"):
		*s = append(*s, strings.Fields(text)...)
	default:
		*s = append(*s, text)
	}
	return nil
}

// String implements pflag.Value.
func (s *servers) String() string { return strings.Join(*s, " ") }

// Type implements pflag.Value.
func (s *servers) Type() string { return "string" }

// Env is the name of the environment variable of a flag.
func Env(flag string) string { return EnvPrefix + strings.ToUpper(Key(flag)) }

// Key is the YAML key of a flag.
func Key(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// Load fills in the settings that were not given as flags: from the
// environment (as os.Environ returns it), then from the file, if it is not "". It
// reports every mistake, and remembers where each setting came from, for Locate.
func Load(settings *pflag.FlagSet, file string, environ []string) error {
	given := make(map[string]bool)
	settings.VisitAll(func(f *pflag.Flag) {
		if f.Changed { // Visit sees only what settings itself has parsed, not a command
			given[f.Name] = true
		}
	})

	k := koanf.New(".")
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
	}), nil)
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	problems := unknownEnv(settings, k.Keys())
	settings.VisitAll(func(f *pflag.Flag) {
		if name := Env(f.Name); k.Exists(name) && !given[f.Name] {
			given[f.Name] = true
			problems = append(problems, set(f, "variable "+name, k.Get(name)))
		}
	})
	if file != "" {
		problems = append(problems, loadFile(settings, file, given))
	}
	return errors.Join(problems...)
}

// fileEnv names the file itself; whoever calls Load has read it.
const fileEnv = EnvPrefix + "CONFIG"

// ruleEnv are the variables that only the rule commands read.
var ruleEnv = []string{EnvPrefix + "SERVER", EnvPrefix + "MERCHANT"}

// kubernetesEnv is what Kubernetes calls a service's variables, behind its name.
var kubernetesEnv = regexp.MustCompile(`^DOORBUSTER_(.+_)?(SERVICE_(HOST|PORT)|PORT)(_.+)?$`)

// unknownEnv reports the variables that no setting has, and what they may mean.
func unknownEnv(settings *pflag.FlagSet, names []string) (problems []error) {
	known := map[string]bool{fileEnv: true}
	settings.VisitAll(func(f *pflag.Flag) { known[Env(f.Name)] = true })
	for _, name := range names {
		if known[name] || kubernetesEnv.MatchString(name) || slices.Contains(ruleEnv, name) {
			continue
		}
		problems = append(problems, fmt.Errorf("unknown variable %s in the environment: the nearest setting is %s", name, nearest(name, known)))
	}
	return problems
}

func loadFile(settings *pflag.FlagSet, file string, given map[string]bool) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if info.Size() > FileMax {
		return fmt.Errorf("config file %s: %d bytes are more than %d", file, info.Size(), FileMax)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	return loadYAML(settings, file, text, given)
}

// loadYAML sets what the text of a file says, except for the flags in given. It reports
// every key that is wrong, not only the first.
func loadYAML(settings *pflag.FlagSet, file string, text []byte, given map[string]bool) error {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		return fmt.Errorf("config file %s: %w", file, err)
	}
	at := lines(text)
	place := func(key string) string {
		if line, known := at[key]; known {
			return fmt.Sprintf("config file %s, line %d", file, line)
		}
		return "config file " + file
	}
	known := map[string]bool{}
	settings.VisitAll(func(f *pflag.Flag) { known[Key(f.Name)] = true })
	var problems []error
	for _, key := range k.Keys() {
		f := settings.Lookup(strings.ReplaceAll(key, "_", "-"))
		switch {
		case f == nil || Key(f.Name) != key:
			problems = append(problems, fmt.Errorf("%s: unknown key %q: the nearest setting is %s", place(key), key, nearest(key, known)))
		case !given[f.Name]:
			problems = append(problems, set(f, place(key)+": "+key, k.Get(key)))
		}
	}
	return errors.Join(problems...)
}

// set gives a flag a value that was found where.
func set(f *pflag.Flag, where string, value any) error {
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[origin] = []string{where}
	switch value := value.(type) {
	case nil:
		return fmt.Errorf("%s: want a value, or no such key", where)
	case []any:
		if _, several := f.Value.(*servers); !several {
			return fmt.Errorf("%s: want one value, not a list", where)
		}
		var errs []error
		for _, one := range value {
			errs = append(errs, set(f, where, one))
		}
		return errors.Join(errs...)
	case string, int, int64, uint64, float64, bool:
	default:
		return fmt.Errorf("%s: want one value, as text or a number", where)
	}
	if err := f.Value.Set(fmt.Sprint(value)); err != nil {
		return fmt.Errorf("%s: %w", where, wrongValue(f, fmt.Sprint(value), err))
	}
	return nil
}

// Validate completes Auth and reports every setting that is out of bounds, by its name:
// Locate says where it came from.
func (c *Config) Validate() error {
	loopback := isLoopback(c.Listen) && isLoopback(c.Admin)
	if c.Auth == "" && loopback {
		c.Auth = AuthOpen
	} else if c.Auth == "" {
		c.Auth = AuthKeys
	}
	problems := []error{
		address("listen", c.Listen),
		address("admin", c.Admin),
		oneOf("auth", c.Auth, AuthOpen, AuthKeys),
		oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log-format", c.LogFormat, "text", "json"),
		within("max-in-flight", c.MaxInFlight, 16, InFlightMax),
		within("max-in-flight-per-deal", c.MaxInFlightByDeal, 1, InFlightMax),
		within("rate-limit", c.RateLimit, 0, RateMax),
		within("rate-burst", c.RateBurst, 1, RateMax),
		within("backtest-cpu", c.BacktestCPU, 1, 100),
		within("passivate-after", c.PassivateAfter, time.Second, DurationMax),
		within("request-timeout", c.RequestTimeout, 10*time.Millisecond, DurationMax),
		within("drain-timeout", c.DrainTimeout, 0, DurationMax),
		within("drain-notice", c.DrainNotice, 0, DurationMax),
	}
	if c.Migrate && len(c.Postgres) == 0 {
		problems = append(problems, wrong("migrate", "only a journal on PostgreSQL has a schema: set postgres too"))
	}
	if c.Cluster {
		problems = append(problems, c.validateCluster()...)
	}
	if c.StockGuard != "" || c.StockGuardStrict {
		problems = append(problems, stockGuard(c.StockGuard))
	}
	if c.TraceEndpoint != "" {
		problems = append(problems, traceEndpoint(c.TraceEndpoint))
	}
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) { // so that NaN fails too
		problems = append(problems, wrong("trace-sample", "%v is not between 0 and 1", c.TraceSample))
	}
	if c.Data == "" {
		problems = append(problems, wrong("data", "name a folder"))
	}
	if c.Auth == AuthOpen && !loopback {
		problems = append(problems, wrong("auth", "open believes every caller, so it is for loopback only, and --listen %s or --admin %s is not: use --auth keys", c.Listen, c.Admin))
	}
	if _, err := Networks(c.WebhookNetworks); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// validateCluster reports what is wrong with the settings of a node.
func (c *Config) validateCluster() (problems []error) {
	need := func(ok bool, settings, text string) {
		if !ok {
			problems = append(problems, wrong(settings, "%s", text))
		}
	}
	problems = append(problems, address("advertise", c.Advertise), oneOf("provider", c.Provider, ProviderEtcd, ProviderK8s, ProviderStatic))
	need(len(c.Postgres) > 0, "cluster", "nodes share a journal on PostgreSQL: set postgres too")
	need(c.Provider != ProviderEtcd || c.Etcd != "", "etcd", "name its servers")
	if c.Provider == ProviderEtcd {
		problems = append(problems, c.validateEtcd()...)
	}
	need(c.Provider != ProviderStatic || c.Peers != "", "peers", "name the nodes")
	files := 0
	for _, file := range []string{c.ClusterTLSCA, c.ClusterTLSCert, c.ClusterTLSKey} {
		if file != "" {
			files++
		}
	}
	need(files == 0 || files == 3, "cluster-tls-ca cluster-tls-cert cluster-tls-key", "set all three or none")
	need(files == 0 || c.ClusterNames != "", "cluster-names", "name the nodes, or everybody with a certificate of the authority is one")
	need(files > 0 || c.Advertise == "" || isLoopback(c.Advertise), "advertise", "nodes that are not on loopback need cluster-tls-ca, cluster-tls-cert and cluster-tls-key")
	return problems
}

// validateEtcd reports what would be sent in the clear, or not at all.
func (c *Config) validateEtcd() (problems []error) {
	if (c.EtcdCert == "") != (c.EtcdKey == "") {
		problems = append(problems, wrong("etcd-cert etcd-key", "set both or none"))
	}
	if (c.EtcdUser == "") != (c.EtcdPassword == "") {
		problems = append(problems, wrong("etcd-user etcd-password", "set both or none"))
	}
	for _, server := range strings.FieldsFunc(c.Etcd, func(r rune) bool { return r == ',' || r == ' ' }) {
		u, err := url.Parse(server)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			problems = append(problems, wrong("etcd", "%q is not a URL like https://etcd-1:2379", hide(server)))
		case u.Scheme == "https":
		case c.EtcdCA != "" || c.EtcdCert != "":
			problems = append(problems, wrong("etcd", "%s is not https, and etcd-ca and etcd-cert are only for that", hide(server)))
		case c.EtcdUser != "" && !isLoopback(u.Host):
			problems = append(problems, wrong("etcd", "%s would get the password in the clear: use https", hide(server)))
		}
	}
	return problems
}

// stockGuard does not repeat the address, which may hold a password.
func stockGuard(address string) error {
	u, err := url.Parse(address)
	if err != nil || !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme) || u.Host+u.Path == "" {
		return wrong("stock-guard", "want an address like redis://host:6379, rediss://host:6379 or unix:///run/redis.sock")
	}
	return nil
}

// traceEndpoint does not repeat the address either. An exporter sends no query, so a key
// in one would not reach the collector.
func traceEndpoint(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return wrong("trace-endpoint", "want an address like http://127.0.0.1:4318")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return wrong("trace-endpoint", "want an address without a query: what follows its ? or # is not sent to the collector")
	}
	return nil
}

// Networks reads the value of --webhook-networks.
func Networks(text string) (networks []netip.Prefix, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		network, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, wrong("webhook-networks", "%q is not a network like 10.1.0.0/16", part)
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}

func address(name, value string) error {
	if _, _, err := net.SplitHostPort(value); err != nil {
		return wrong(name, "%q is not host:port", value)
	}
	return nil
}

func oneOf(name, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return wrong(name, "%q is not one of %s", value, strings.Join(allowed, ", "))
}

func within[T int | time.Duration](name string, value, low, high T) error {
	if low <= value && value <= high {
		return nil
	}
	return wrong(name, "%v is not between %v and %v", value, low, high)
}

// Network is what to listen on for an address: 0.0.0.0 means all addresses of IPv4, and Go
// would take it for those of IPv6 too.
func Network(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if ip, bad := netip.ParseAddr(host); err == nil && bad == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// isLoopback tells whether only this machine can reach the address, which may have a
// port. A name is not resolved: what it means may change after it was checked.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// In an address of any other setting, inURL finds the user and the password, and afterURL
// what follows the path, which may be a secret too: to the end, as it may hold any letter.
var (
	inURL    = regexp.MustCompile(`://[^/@\s]*@`)
	afterURL = regexp.MustCompile(`(?s)(://[^?#]*[?#]).+`)
)

// hide takes what may be secret out of a value that may have addresses.
func hide(value string) string {
	value = inURL.ReplaceAllString(value, "://(hidden)@")
	return afterURL.ReplaceAllString(value, "${1}(hidden)")
}

// Print returns the settings as YAML that Load reads, secrets hidden.
func Print(settings *pflag.FlagSet) string {
	var out strings.Builder
	settings.VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		if _, hide := f.Annotations[secret]; hide && value != "" {
			value = "(hidden)"
		}
		value = hide(value)
		if f.Value.Type() == "string" {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&out, "%s: %s # %s\n", Key(f.Name), value, f.Usage)
	})
	return out.String()
}
