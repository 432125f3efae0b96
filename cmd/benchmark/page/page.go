// Package page writes what measurements found: sections of a Markdown page, each
// written by one command and by nobody else, and SVG plots beside it.
package page

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// WriteSection replaces the part of the page at path that the command writes, or
// appends it. Each stands between two lines that name the command. Without a path
// nothing is written.
func WriteSection(path, command, section string) error {
	if path == "" {
		return nil
	}
	begin := fmt.Sprintf("<!-- written by %s -->\n", command)
	end := fmt.Sprintf("<!-- end of what %s writes -->\n", command)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if found && !closed {
		return fmt.Errorf("%s: the line %q is missing", path, strings.TrimSpace(end))
	}
	return os.WriteFile(path, []byte(before+begin+section+end+after), 0o644)
}

// WritePlot writes a plot into a folder beside the page at path, which has the
// page's name without its ending, and returns the Markdown that shows it.
func WritePlot(path, name, title string, svg []byte) (string, error) {
	base := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	dir := filepath.Join(filepath.Dir(path), base)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := name + ".svg"
	return fmt.Sprintf("\n![%s](%s/%s)\n", title, base, file), os.WriteFile(filepath.Join(dir, file), svg, 0o644)
}

// Machine describes where this program runs: "<processor> with <n> cores, <Go>".
func Machine() string {
	return fmt.Sprintf("%s with %d cores, %s", CPU(), runtime.NumCPU(), runtime.Version())
}

// CPU is what the system calls the processor.
func CPU() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, rest, _ := strings.Cut(string(info), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	_, name, found := strings.Cut(line, ": ")
	if !found {
		return runtime.GOARCH
	}
	return name
}
