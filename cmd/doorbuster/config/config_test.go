package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load reads a configuration as the command does, without validating it.
func load(t *testing.T, file string, environ []string, args ...string) (Config, error) {
	t.Helper()
	c := Default()
	settings := c.Flags()
	if err := settings.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, Load(settings, file, environ)
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "doorbuster.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEachSourceBeatsTheOneBelow(t *testing.T) {
	file := write(t, "data: file\nlisten: file:1\nlog_level: file\n")
	environ := []string{"DOORBUSTER_LISTEN=env:1", "DOORBUSTER_LOG_LEVEL=env", "DOORBUSTER_SERVICE_HOST=10.0.0.1"}
	c := Default()
	settings := c.Flags()
	if err := settings.Parse([]string{"--log-level", "flag"}); err != nil {
		t.Fatal(err)
	}
	if err := Load(settings, file, environ); err != nil {
		t.Fatal(err)
	}
	got := []string{c.Admin, c.Data, c.Listen, c.LogLevel}
	want := []string{Default().Admin, "file", "env:1", "flag"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
			break
		}
	}
}

func TestEverySettingHasItsTwins(t *testing.T) {
	c := Default()
	c.Flags().VisitAll(func(f *pflag.Flag) {
		value := map[string]string{"string": "x", "int": "77", "duration": "77s", "bool": "true", "float64": "0.77"}[f.Value.Type()]
		if value == "" {
			t.Fatalf("--%s has the type %s, which this test does not know", f.Name, f.Value.Type())
		}
		fromEnv, fromFile := Default(), Default()
		if err := Load(fromEnv.Flags(), "", []string{Env(f.Name) + "=" + value}); err != nil {
			t.Error(err)
		}
		if err := Load(fromFile.Flags(), write(t, Key(f.Name)+": "+value), nil); err != nil {
			t.Error(err)
		}
		if reflect.DeepEqual(fromEnv, Default()) || !reflect.DeepEqual(fromEnv, fromFile) {
			t.Errorf("--%s: the environment gives %+v, the file %+v", f.Name, fromEnv, fromFile)
		}
	})
}

func TestLoadReportsEveryMistake(t *testing.T) {
	file := write(t, "lisen: a:1\nmax_in_flight: many\n\npassivate_after: [1]\nmax-in-flight: 5\nkey: [hunter2]\nlisten:\ndata:\n  folder: hunter2\n")
	_, err := load(t, file, []string{"DOORBUSTER_CLUSTER=maybe"})
	for _, want := range []string{
		"variable DOORBUSTER_CLUSTER: \"maybe\" is not true or false\n",
		file + `, line 1: unknown key "lisen": the nearest setting is listen`, file + `, line 2: max_in_flight: "many" is not a whole number`,
		file + ", line 4: passivate_after: want one value, not a list", file + `, line 5: unknown key "max-in-flight": the nearest setting is max_in_flight`,
		file + ", line 6: key: want one value", file + ", line 7: listen: want a value", file + `, line 9: unknown key "data.folder"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret is shown: %v", err)
	}
	_, err = load(t, "", []string{"DOORBUSTER_REQUEST_TIMEOUT=5"})
	if err == nil || !strings.Contains(err.Error(), `DOORBUSTER_REQUEST_TIMEOUT: "5" is not a duration`) {
		t.Error(err)
	}
}

func TestMisspeltVariablesAreRefused(t *testing.T) {
	for name, near := range map[string]string{
		"DOORBUSTER_LOGLEVEL": "DOORBUSTER_LOG_LEVEL", "DOORBUSTER_MAX_INFLIGHT": "DOORBUSTER_MAX_IN_FLIGHT",
		"DOORBUSTER_LISTN": "DOORBUSTER_LISTEN", "DOORBUSTER_DATA_": "DOORBUSTER_DATA", "DOORBUSTER_CONFG": "DOORBUSTER_CONFIG",
	} {
		_, err := load(t, "", []string{name + "=x"})
		if err == nil || !strings.Contains(err.Error(), "unknown variable "+name+" in") || !strings.HasSuffix(err.Error(), " "+near) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"DOORBUSTER_CONFIG", "DOORBUSTER_PORT", "DOORBUSTER_PORT_8080_TCP_ADDR", "DOORBUSTER_SERVICE_PORT_HTTP", "DOORBUSTER_ADMIN_SERVICE_HOST", "XDOORBUSTER_LISTN",
		"DOORBUSTER_SERVER", "DOORBUSTER_MERCHANT",
	} {
		if _, err := load(t, "", []string{name + "=x"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadRefusesFilesItCannotRead(t *testing.T) {
	for name, file := range map[string]string{
		"absent":   filepath.Join(t.TempDir(), "none.yaml"),
		"folder":   t.TempDir(),
		"not YAML": write(t, "a: [b"),
		"too long": write(t, "#"+strings.Repeat("x", FileMax)),
	} {
		if _, err := load(t, file, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // part of the error, "" = none
	}{
		{"", ""},
		{"--listen [::1]:80 --admin localhost:90 --auth open", ""},
		{"--listen 0.0.0.0:80 --auth keys", ""},
		{"--listen 0.0.0.0:80 --auth open", "loopback only"},
		{"--admin :9090 --auth open", "loopback only"},
		{"--listen shop.example:80 --auth open", "loopback only"},
		{"--listen 80", "listen: "},
		{"--admin 127.0.0.1", "admin: "},
		{"--auth none", "auth: "},
		{"--log-level loud", "log-level: "},
		{"--log-format xml", "log-format: "},
		{"--max-in-flight 0", "max-in-flight: "},
		{"--max-in-flight 65535", ""},
		{"--max-in-flight 65536", "max-in-flight: "}, // a node has no seats for them
		{"--max-in-flight-per-deal 100000", "max-in-flight-per-deal: "},
		{"--rate-limit -1", "rate-limit: "},
		{"--rate-burst 0", "rate-burst: "},
		{"--passivate-after 1ms", "passivate-after: "},
		{"--request-timeout 0s", "request-timeout: "},
		{"--drain-timeout -1s", "drain-timeout: "},
		{"--drain-notice 25h", "drain-notice: "},
		{"--webhook-networks 10.1.0.0/16,fd00::/64", ""},
		{"--webhook-networks 10.1.0.0", "webhook-networks: "},
		{"--backtest-cpu 101", "backtest-cpu: "},
		{"--trace-sample 1.5", "trace-sample: "},
		{"--trace-endpoint http://me:hunter2@collector:4318/otlp", ""},
		{"--trace-endpoint collector:4318", "trace-endpoint: want an address like"},
		{"--trace-endpoint http://collector:4318/?api_key=hunter2", "trace-endpoint: want an address without a query"},
		{"--trace-endpoint http://collector:4318#hunter2", "trace-endpoint: want an address without a query"},
		{"--data=", "data: "},
		{"--stock-guard redis://127.0.0.1:6379 --stock-guard-strict", ""},
		{"--stock-guard unix:///run/redis.sock", ""},
		{"--stock-guard 127.0.0.1:6379", "stock-guard: "},
		{"--stock-guard http://127.0.0.1:6379", "stock-guard: "},
		{"--stock-guard-strict", "stock-guard: "},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd http://etcd:2379", ""},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider static --peers 127.0.0.1:7946", ""},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider k8s", ""},
		{"--cluster --postgres db --advertise node-1:7946 --provider k8s --cluster-tls-ca a --cluster-tls-cert b --cluster-tls-key c --cluster-names node", ""},
		{"--cluster --advertise 127.0.0.1:7946 --provider k8s", "set postgres too"},
		{"--cluster --postgres db --provider k8s", "advertise: "},
		{"--cluster --postgres db --advertise 127.0.0.1:7946", "etcd: "},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd https://etcd:2379 --etcd-ca a --etcd-cert b --etcd-key c --etcd-user u --etcd-password p", ""},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd http://127.0.0.1:2379 --etcd-user u --etcd-password p", ""},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd http://localhost,http://[::1] --etcd-user u --etcd-password p", ""},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd http://[2001:db8::1] --etcd-user u --etcd-password p", "in the clear"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd etcd:2379", "is not a URL"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd ftp://me:hunter2@etcd", "is not a URL"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd http://etcd:2379 --etcd-user u --etcd-password p", "in the clear"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd https://etcd:2379,http://etcd:2379 --etcd-ca a", "is not https"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd https://etcd:2379 --etcd-cert b", "set both or none"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --etcd https://etcd:2379 --etcd-user u", "set both or none"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider static", "peers: "},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider dns", "provider: "},
		{"--cluster --postgres db --advertise node-1:7946 --provider k8s", "not on loopback need"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider k8s --cluster-tls-ca a", "all three or none"},
		{"--cluster --postgres db --advertise 127.0.0.1:7946 --provider k8s --cluster-tls-ca a --cluster-tls-cert b --cluster-tls-key c", "cluster-names: "},
	} {
		c, err := load(t, "", nil, strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: %v", test.args, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is shown: %v", err)
		}
	}
}

func TestAuthFollowsTheListeners(t *testing.T) {
	for args, want := range map[string]string{
		"":                      AuthOpen,
		"--listen 0.0.0.0:8080": AuthKeys,
		"--admin 10.0.0.1:9090": AuthKeys,
	} {
		c, _ := load(t, "", nil, strings.Fields(args)...)
		if err := c.Validate(); err != nil || c.Auth != want {
			t.Errorf("%q: auth %s, %v", args, c.Auth, err)
		}
	}
}

func TestPrintIsReadBackAndHidesSecrets(t *testing.T) {
	c, err := load(t, "", nil, "--data", "a \"b\"", "--request-timeout", "90s")
	if err != nil {
		t.Fatal(err)
	}
	settings := c.Flags()
	again, err := load(t, write(t, Print(settings)), nil)
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("%+v became %+v: %v", c, again, err)
	}
	c.Key = "dbk_operator_1_2"
	if text := Print(settings); strings.Contains(text, "dbk_") || !strings.Contains(text, `key: "(hidden)"`) {
		t.Errorf("the secret is shown:\n%s", text)
	}
}

// FuzzYAML feeds arbitrary files: they load or are refused, and what was loaded
// and is valid prints as a file that loads to the same configuration.
func FuzzYAML(f *testing.F) {
	c := Default()
	f.Add([]byte(Print(c.Flags())))
	f.Add([]byte("listen: 0.0.0.0:80\nauth: keys\nmax_in_flight: 64\n"))
	f.Add([]byte("postgres: postgres://user:password@host/database\nkey: dbk\n"))
	f.Add([]byte("a: &a [*a]\n? [x]\n: y"))
	f.Add([]byte("request_timeout: 1e3\nlog_level: !!binary AA=="))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Default()
		settings := c.Flags()
		if loadYAML(settings, "file", text, nil) != nil || c.Validate() != nil {
			return
		}
		settings.VisitAll(func(f *pflag.Flag) {
			if _, hidden := f.Annotations[secret]; hidden || strings.Contains(f.Value.String(), "://") { // is not printed in full
				_ = f.Value.Set("")
			}
		})
		again := Default()
		if err := loadYAML(again.Flags(), "file", []byte(Print(c.Flags())), nil); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v became %+v: %v", c, again, err)
		}
	})
}

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil || c.RequestTimeout > time.Minute {
		t.Errorf("%+v: %v", c, err)
	}
}

// A journal on several servers is named in each of the three ways.
func TestServers(t *testing.T) {
	const a, b, keyed = "postgres://a,b/shop", "postgresql://c/shop", "host=a dbname=shop"
	for _, test := range []struct {
		name, file, env string
		args            []string
		want            []string
	}{
		{name: "none"},
		{name: "flags", args: []string{"--postgres", a, "--postgres", b}, file: "postgres: " + b, env: b, want: []string{a, b}},
		{name: "one flag", args: []string{"--postgres", b + " " + a}, want: []string{b, a}},
		{name: "environment", env: a + " " + b, file: "postgres: " + b, want: []string{a, b}},
		{name: "list in the file", file: "postgres:\n  - " + a + "\n  - " + b, want: []string{a, b}},
		{name: "line in the file", file: "postgres: " + a, want: []string{a}},
		{name: "key=value", args: []string{"--postgres", keyed, "--postgres", keyed}, want: []string{keyed, keyed}},
	} {
		var environ []string
		if test.env != "" {
			environ = append(environ, "DOORBUSTER_POSTGRES="+test.env)
		}
		c, err := load(t, write(t, test.file), environ, test.args...)
		if err != nil || !slices.Equal(c.Postgres, test.want) {
			t.Errorf("%s: %q, %v, want %q", test.name, c.Postgres, err, test.want)
		}
	}
}

// What is wrong with an address that was not given is that, and nothing about TLS.
func TestNoAdvertise(t *testing.T) {
	c, err := load(t, "", nil, strings.Fields("--cluster --postgres db --provider k8s")...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err == nil || strings.Contains(err.Error(), "loopback") {
		t.Errorf("%v", err)
	}
}

// A password is hidden wherever an address may have one, and so is a query.
func TestPrintHidesWhatAddressesCarry(t *testing.T) {
	c := Default()
	settings := c.Flags()
	for _, test := range []struct{ endpoint, etcd, endpointShown, etcdShown string }{
		{"http://me:hunter2@collector:4318", "https://a:1,https://me:hunter2@b:2", "http://(hidden)@collector:4318", "https://a:1,https://(hidden)@b:2"},
		{"http://me:hunter2@h:4318/v?api_key=hunter2&hunter2", "https://a:1,https://b:2?k=hunter2,hunter2", "http://(hidden)@h:4318/v?(hidden)", "https://a:1,https://b:2?(hidden)"},
		{"http://h?k=hunter2 hunter2", "https://a:1/#hunter2", "http://h?(hidden)", "https://a:1/#(hidden)"},
	} {
		if err := settings.Parse([]string{"--trace-endpoint", test.endpoint, "--etcd", test.etcd}); err != nil {
			t.Fatal(err)
		}
		text := Print(settings)
		if strings.Contains(text, "hunter2") || !strings.Contains(text, `"`+test.endpointShown+`"`) || !strings.Contains(text, `"`+test.etcdShown+`"`) {
			t.Error(text)
		}
	}
}

// What was set to no effect is told, with where it came from, and nothing else is.
func TestIgnored(t *testing.T) {
	const node = "--cluster --postgres db --advertise 127.0.0.1:7946 "
	for _, test := range []struct {
		args, file string
		want       []string // part of each
		fatal      bool
	}{
		{args: ""},
		{args: "--jwks keys.json", fatal: true},
		{args: "--jwks keys.json --auth keys"},
		{args: "--jwks keys.json --listen 0.0.0.0:80"},
		{file: "peers: a:1\nadvertise: a:1\n", want: []string{"line 2: advertise: has no effect without cluster", "line 1: peers: has no effect without cluster and provider static"}},
		{args: node + "--etcd http://127.0.0.1 --peers a:1", want: []string{"flag --peers: "}},
		{args: node + "--provider static --peers a:1 --etcd-user u", want: []string{"flag --etcd-user: "}},
		{args: node + "--provider k8s --cluster-names n", want: []string{"flag --cluster-names: has no effect without cluster-tls-ca"}},
		{args: "--cluster-names n", want: []string{"flag --cluster-names: has no effect without cluster"}},
		{args: "--trace-sample 1 --trace-trust", want: []string{"flag --trace-sample: ", "flag --trace-trust: "}},
		{args: "--trace-sample 1 --trace-endpoint http://h"},
		{file: "trace_sample: 0.001\ntrace_trust: false\nprovider: etcd\nrate_burst: 100\n"}, // the defaults, as config print writes them
		{args: "--rate-burst 5", want: []string{"flag --rate-burst: has no effect without rate-limit"}},
		{args: "--max-in-flight 64"}, // the other is more, and nobody has said so
		{args: "--max-in-flight 64 --max-in-flight-per-deal 65", want: []string{"flag --max-in-flight-per-deal: "}},
		{args: "--drain-notice 11s", want: []string{"flag --drain-notice: has no effect beyond drain-timeout, which is 10s"}},
	} {
		c := Default()
		settings := c.Flags()
		if err := settings.Parse(strings.Fields(test.args)); err != nil {
			t.Fatal(err)
		}
		if err := Load(settings, write(t, test.file), nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		idle, err := c.Ignored(settings)
		same := len(idle) == len(test.want) && (err != nil) == test.fatal
		for i := range test.want {
			same = same && strings.Contains(idle[i].Error(), test.want[i])
		}
		if !same {
			t.Errorf("%q %q: %q, %v", test.args, test.file, idle, err)
		}
	}
}

// An address of IPv4 is one of IPv4 only.
func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:0": "tcp4", "127.0.0.1:0": "tcp4", "[::]:80": "tcp", "[::ffff:0.0.0.0]:80": "tcp", ":80": "tcp", "localhost:80": "tcp", "0.0.0.0": "tcp",
	} {
		if got := Network(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
