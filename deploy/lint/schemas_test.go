package lint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The schemas that Kubernetes publishes, as sigs.k8s.io/kubectl-validate carries them:
// only its files are used, since building it takes minutes.
const (
	schemasModule  = "sigs.k8s.io/kubectl-validate@v0.0.4"
	schemasSum     = "h1:tGKuv0awYHn11Cb6KPsZKxUmHgavF46K3NvVH0Nse9U="
	schemasVersion = "1.30"
)

// schemas know every kind of object of one version of Kubernetes.
type schemas struct {
	dir   string
	kinds map[string]*jsonschema.Schema // by apiVersion and kind
}

func newSchemas(t *testing.T) *schemas {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", schemasModule).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &module); err != nil || module.Sum != schemasSum {
		t.Fatalf("%s is %q: %v", schemasModule, module.Sum, err)
	}
	return &schemas{
		dir:   filepath.Join(module.Dir, "pkg/openapiclient/builtins", schemasVersion),
		kinds: map[string]*jsonschema.Schema{},
	}
}

// validate says what is wrong with an object, unknown fields included.
func (s *schemas) validate(t *testing.T, o object) error {
	t.Helper()
	version, kind := o.text("apiVersion"), o.text("kind")
	if s.kinds[version+" "+kind] == nil {
		if err := s.load(t, version); err != nil {
			return err
		}
	}
	schema := s.kinds[version+" "+kind]
	if schema == nil {
		return fmt.Errorf("there is no %s in %s", kind, version)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// load compiles all kinds of one API version.
func (s *schemas) load(t *testing.T, version string) error {
	t.Helper()
	group := "apis/" + version
	if !strings.Contains(version, "/") {
		group = "api/" + version
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(read(t, filepath.Join(s.dir, group+".json")))))
	if err != nil {
		return err
	}
	document, _ := value.(map[string]any)
	components, _ := document["components"].(map[string]any)
	types, _ := components["schemas"].(map[string]any)
	if len(types) == 0 {
		return errors.New("found no type in " + group)
	}
	for _, schema := range types {
		if schema, ok := schema.(map[string]any); ok && schema["properties"] != nil {
			schema["additionalProperties"] = false
		}
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft4) // OpenAPI 3.0 is closest to it
	if err := compiler.AddResource("k8s.json", map[string]any{"components": components}); err != nil {
		return err
	}
	for name, schema := range types {
		of, _ := schema.(map[string]any)
		known, _ := of["x-kubernetes-group-version-kind"].([]any)
		if len(known) != 1 {
			continue // part of others, or common to all versions
		}
		kind, _ := known[0].(map[string]any)
		compiled, err := compiler.Compile("k8s.json#/components/schemas/" + name)
		if err != nil {
			return err
		}
		s.kinds[fmt.Sprintf("%s %v", version, kind["kind"])] = compiled
	}
	return nil
}
