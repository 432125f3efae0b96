package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// buildGo compiles the package in the source's folder with Go's own toolchain, as
// a reactor: a module whose main does not run. Its bytes are those of its source
// alone: with the commit in them, each commit would be a new version of the rule, and a
// repository that another user owns would not build.
func buildGo(ctx context.Context, source, out string) error {
	compiler, err := find("go", "https://go.dev/dl, or apt-get install golang")
	if err != nil {
		return err
	}
	out, err = filepath.Abs(out)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, compiler, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
	command.Dir = filepath.Dir(source)
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go: %w\n%s", err, output)
	}
	return nil
}
