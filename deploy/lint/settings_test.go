package lint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// start is one way in which a manifest starts the binary.
type start struct {
	args []string
	env  []string
	file string // what --config names, if it is in a manifest
}

var configFlag = regexp.MustCompile(`^--config=.*$`)

// TestEverySettingIsOne hands the binary what each manifest starts it with. It prints
// the configuration that comes of it, or says which flag, variable, key or value it
// does not know; other commands than serve say so before they print their help.
func TestEverySettingIsOne(t *testing.T) {
	binary := build(t)
	for where, s := range starts(t) {
		if out, err := s.try(t, binary); err != nil {
			t.Errorf("%s: %v: %s", where, s, out)
		}
	}
	certificates(t, binary)
	// The check is no better than what the binary refuses.
	for _, s := range []start{
		{args: []string{"serve", "--no-such-flag"}},
		{args: []string{"migrate", "--no-such-flag"}},
		{args: []string{"serve"}, env: []string{"DOORBUSTER_NO_SUCH_SETTING=1"}},
		{args: []string{"serve", "--config="}, file: "no_such_setting: 1"},
		{args: []string{"serve", "--drain-timeout=20"}},
	} {
		if out, err := s.try(t, binary); err == nil {
			t.Errorf("%v is taken: %s", s, out)
		}
	}
}

// certificates: Compose's first service makes the files that its nodes read.
func certificates(t *testing.T, binary string) {
	t.Helper()
	services := compose(t).Services
	dir := t.TempDir()
	var args []string
	for _, arg := range services["certificates"].Command {
		if strings.HasPrefix(arg, "--dir=") {
			arg = "--dir=" + dir
		}
		args = append(args, arg)
	}
	if out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", args, out)
	}
	env := services["node-1"].Environment
	for _, name := range []string{"CA", "CERT", "KEY"} {
		file := *env["DOORBUSTER_CLUSTER_TLS_"+name]
		if _, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(file, "/certificates/"))); err != nil {
			t.Error(err)
		}
	}
	if name := *env["DOORBUSTER_CLUSTER_NAMES"]; !strings.Contains(strings.Join(args, " "), "--name="+name+" ") {
		t.Errorf("nodes look for %s", name)
	}
}

func (s start) try(t *testing.T, binary string) (string, error) {
	t.Helper()
	args := append([]string{"config", "print"}, s.args[1:]...)
	if s.args[0] != "serve" {
		args = append(append([]string{}, s.args...), "--help")
	}
	if s.file != "" {
		file := filepath.Join(t.TempDir(), "doorbuster.yaml")
		if err := os.WriteFile(file, []byte(s.file), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, arg := range args {
			args[i] = configFlag.ReplaceAllLiteralString(arg, "--config="+file)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env, cmd.Dir = append([]string{"PATH=" + os.Getenv("PATH")}, s.env...), t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// starts are all of them, by where they stand.
func starts(t *testing.T) map[string]start {
	t.Helper()
	all := map[string]start{"unit": unit(t)}
	for name, objects := range installations(t) {
		pod := objects.one(t, "Deployment")
		for _, kind := range []string{"initContainers", "containers"} {
			containers, _ := pod.at("spec", "template", "spec", kind).([]any)
			for _, c := range containers {
				c := object(c.(map[string]any))
				s := start{file: settingsFile(t, objects)}
				for i := range c.at("args").([]any) {
					s.args = append(s.args, strings.ReplaceAll(c.text("args", i), "$(POD_IP)", "10.1.2.3"))
				}
				for i := range c.at("env").([]any) {
					value := c.text("env", i, "value")
					if c.at("env", i, "valueFrom") != nil {
						value = "postgres://u:p@db/shop"
					}
					s.env = append(s.env, c.text("env", i, "name")+"="+value)
				}
				all[name+"/"+c.text("name")] = s
			}
		}
	}
	for name, service := range compose(t).Services {
		if service.Build == nil {
			continue
		}
		s := start{args: service.Command}
		for key, value := range service.Environment {
			s.env = append(s.env, key+"="+*value)
		}
		all["compose/"+name] = s
	}
	for _, c := range stages(t)[1].Commands {
		if cmd, ok := c.(*instructions.CmdCommand); ok {
			all["image"] = start{args: cmd.CmdLine}
		}
	}
	return all
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/doorbuster (.+)$`)

// unit is what systemd starts, with the settings that are to lie beside it.
func unit(t *testing.T) start {
	t.Helper()
	found := execStart.FindSubmatch(read(t, "../systemd/doorbuster.service"))
	if found == nil {
		t.Fatal("the unit starts nothing")
	}
	return start{args: strings.Fields(string(found[1])), file: string(read(t, "../systemd/doorbuster.yaml"))}
}

// build returns the server as it is shipped. `go test` sees what a test looks at, not
// what it builds, and would serve a stale pass: it looks at where settings come from.
func build(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"../../cmd/doorbuster/*.go", "../../cmd/doorbuster/config/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal("found nothing at", pattern, err)
		}
		for _, file := range files {
			if _, err := os.Stat(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	binary := filepath.Join(t.TempDir(), "doorbuster")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/doorbuster")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}
