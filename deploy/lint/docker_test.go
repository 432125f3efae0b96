package lint_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const dockerfile = "../docker/Dockerfile"

// stages parses the Dockerfile as BuildKit does; its warnings are errors here.
func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	tree, err := parser.Parse(bytes.NewReader(read(t, dockerfile)))
	if err != nil {
		t.Fatal(err)
	}
	warn := func(rule, _, _, text string, _ []parser.Range) { t.Errorf("%s: %s", rule, text) }
	all, _, err := instructions.Parse(tree.AST, linter.New(&linter.Config{Warn: warn}))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range tree.Warnings {
		t.Error(w.Short)
	}
	return all
}

func TestDockerfile(t *testing.T) {
	all := stages(t)
	build, last := all[0], all[len(all)-1]
	if len(all) != 2 || last.BaseName != "scratch" || build.Platform != "$BUILDPLATFORM" {
		t.Errorf("%d stages, the last from %s, the first on %q", len(all), last.BaseName, build.Platform)
	}
	var copied []string
	var user string
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			if c.From != build.Name {
				t.Errorf("%s copies from %q", c, c.From)
			}
			copied = append(copied, c.DestPath)
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell || !slices.Equal(c.CmdLine, []string{"/doorbuster"}) {
				t.Errorf("there is no shell to run %v", c.CmdLine)
			}
		case *instructions.RunCommand:
			t.Errorf("there is nothing to run %s with", c)
		}
	}
	for _, want := range []string{"/doorbuster", "/etc/ssl/certs/ca-certificates.crt", "/var/lib/doorbuster"} {
		if !slices.Contains(copied, want) {
			t.Errorf("the image has no %s", want)
		}
	}
	// Kubernetes' runAsNonRoot looks at the number.
	if user != "65532:65532" {
		t.Errorf("it runs as %q", user)
	}
	compile := commandsOf(build)
	for _, want := range []string{"CGO_ENABLED=0", "GOOS=$TARGETOS", "GOARCH=$TARGETARCH", "-trimpath"} {
		if !strings.Contains(compile, want) {
			t.Errorf("it is compiled without %s", want)
		}
	}
}

func commandsOf(s instructions.Stage) string {
	var text strings.Builder
	for _, c := range s.Commands {
		if run, ok := c.(*instructions.RunCommand); ok {
			text.WriteString(strings.Join(run.CmdLine, " ") + "\n")
		}
	}
	return text.String()
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../docker/compose.yaml"}, cli.WithProfiles([]string{"tools"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	project := compose(t)
	var advertised []string
	for name, s := range project.Services {
		if s.Build == nil {
			if !strings.Contains(s.Image, ":") {
				t.Errorf("%s: %s is whatever is newest", name, s.Image)
			}
			continue
		}
		if s.Build.Dockerfile != "deploy/docker/Dockerfile" || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
			t.Errorf("%s: %+v", name, s)
		}
		if at := s.Environment["DOORBUSTER_ADVERTISE"]; at != nil {
			advertised = append(advertised, *at)
			if *at != name+":7946" {
				t.Errorf("%s is to be found at %s", name, *at)
			}
			drain := duration(t, *s.Environment["DOORBUSTER_DRAIN_TIMEOUT"])
			if s.StopGracePeriod == nil || duration(t, s.StopGracePeriod.String()) < drain+drain/2 {
				t.Errorf("%s: a drain of %v has %v", name, drain, s.StopGracePeriod)
			}
			if !slices.Contains(project.Services["certificates"].Command, "--host="+name) {
				t.Errorf("%s has no certificate", name)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to everybody", name, port.Published)
			}
		}
	}
	if len(advertised) != 3 {
		t.Errorf("the nodes are %v", advertised)
	}
}
