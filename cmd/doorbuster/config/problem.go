package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// origin is the annotation of a flag that says where its value came from, if that was not
// the command line.
const origin = "origin"

// problem is what is wrong with a setting, or with some that belong together.
type problem struct {
	settings []string // names of flags
	text     string
}

// wrong makes a problem of settings whose names stand with spaces in between.
func wrong(settings, format string, args ...any) error {
	return &problem{strings.Fields(settings), fmt.Sprintf(format, args...)}
}

// Error implements error.
func (p *problem) Error() string { return strings.Join(p.settings, ", ") + ": " + p.text }

// Locate puts into what Validate said where each setting came from: a flag, a variable, or
// a line of the file. Settings that nobody gave keep their names.
func Locate(settings *pflag.FlagSet, err error) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var located []error
		for _, one := range several.Unwrap() {
			located = append(located, Locate(settings, one))
		}
		return errors.Join(located...)
	}
	p := (*problem)(nil)
	if !errors.As(err, &p) {
		return err
	}
	var places []string
	for _, name := range p.settings {
		places = append(places, place(settings.Lookup(name)))
	}
	return errors.New(strings.Join(places, ", ") + ": " + p.text)
}

// place says where a setting came from.
func place(f *pflag.Flag) string {
	switch from := f.Annotations[origin]; {
	case len(from) > 0:
		return from[0]
	case f.Changed:
		return "flag --" + f.Name
	default:
		return f.Name + " (not set)"
	}
}

// given says whether anybody gave a setting a value.
func given(f *pflag.Flag) bool {
	return (f.Changed || len(f.Annotations[origin]) > 0) && f.Value.String() != ""
}

// Ignored reports the settings that somebody gave a value and that have no effect beside the
// others. The error is about what a server must not ignore: it would believe every caller,
// though it was told how to know them.
func (c *Config) Ignored(settings *pflag.FlagSet) (idle []error, err error) {
	check := func(effect bool, why string, names ...string) {
		for _, name := range names {
			if !effect && given(settings.Lookup(name)) {
				idle = append(idle, Locate(settings, wrong(name, "has no effect %s", why)))
			}
		}
	}
	// moot is check for what says nothing at its default.
	moot := func(effect bool, why string, names ...string) {
		check(effect, why, slices.DeleteFunc(names, func(name string) bool {
			f := settings.Lookup(name)
			return f.Value.String() == f.DefValue
		})...)
	}
	moot(c.Cluster, "without cluster", "advertise", "provider", "cluster-tls-ca", "cluster-tls-cert", "cluster-tls-key")
	without := "without cluster-tls-ca"
	if !c.Cluster {
		without = "without cluster"
	}
	check(c.Cluster && c.ClusterTLSCA != "", without, "cluster-names")
	check(c.Cluster && c.Provider == ProviderEtcd, "without cluster and provider etcd", "etcd", "etcd-ca", "etcd-cert", "etcd-key", "etcd-user", "etcd-password")
	check(c.Cluster && c.Provider == ProviderStatic, "without cluster and provider static", "peers")
	moot(c.TraceEndpoint != "", "without trace-endpoint", "trace-sample", "trace-trust")
	moot(c.RateLimit > 0, "without rate-limit", "rate-burst")
	check(c.MaxInFlightByDeal <= c.MaxInFlight, fmt.Sprintf("beyond max-in-flight, which is %d", c.MaxInFlight), "max-in-flight-per-deal")
	check(c.DrainNotice <= c.DrainTimeout, fmt.Sprintf("beyond drain-timeout, which is %v", c.DrainTimeout), "drain-notice")
	if c.Auth == AuthOpen && c.JWKS != "" {
		err = Locate(settings, wrong("jwks", "auth is open, which believes every caller and looks at no token: set auth to keys, or take jwks away"))
	}
	return idle, err
}

// FlagError says of a command line that could not be read which flag is wrong, what it
// takes, or what it may have been meant to be.
func FlagError(flags *pflag.FlagSet, err error) error {
	if value := (*pflag.InvalidValueError)(nil); errors.As(err, &value) {
		return fmt.Errorf("flag --%s: %w", value.GetFlag().Name, wrongValue(value.GetFlag(), value.GetValue(), value))
	}
	if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		name, known := unknown.GetSpecifiedName(), map[string]bool{}
		flags.VisitAll(func(f *pflag.Flag) { known[f.Name] = !f.Hidden })
		maps.DeleteFunc(known, func(_ string, shown bool) bool { return !shown })
		if near := nearest(name, known); near != "" && distance(name, near) <= max(1, len(name)/3) {
			return fmt.Errorf("%w: the nearest flag is --%s", err, near)
		}
	}
	return err
}

// wrongValue says why a flag does not take a value.
func wrongValue(f *pflag.Flag, value string, err error) error {
	kind := kinds[f.Value.Type()]
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%q is beyond all bounds", value)
	case kind == "":
		return err
	}
	return fmt.Errorf("%q is not %s", value, kind)
}

// kinds says what the values of a type of flag are.
var kinds = map[string]string{
	"bool": "true or false", "duration": "a duration with its unit, such as 500ms, 10s or 1h30m", "float64": "a number",
	"int": "a whole number", "int64": "a whole number", "uint": "a whole number, 0 or more", "uint32": "a whole number, 0 or more", "uint64": "a whole number, 0 or more",
}

// lines says in which line of a YAML text each key is, by the names that koanf gives them.
// What is behind an alias has none.
func lines(text []byte) map[string]int {
	at := map[string]int{}
	var walk func(n *yaml.Node, above string)
	walk = func(n *yaml.Node, above string) {
		if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
			walk(n.Content[0], above)
		}
		for i := 1; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			at[above+n.Content[i-1].Value] = n.Content[i-1].Line
			walk(n.Content[i], above+n.Content[i-1].Value+".")
		}
	}
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) == nil { // koanf has read it
		walk(&doc, "")
	}
	return at
}

// nearest is what name may have been meant to be.
func nearest(name string, known map[string]bool) string {
	if len(known) == 0 {
		return ""
	}
	return slices.MinFunc(slices.Sorted(maps.Keys(known)), func(a, b string) int {
		return cmp.Compare(distance(name, a), distance(name, b))
	})
}

// distance is how many letters must be put in, taken out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
