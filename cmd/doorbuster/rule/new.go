package rule

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/sdk"
)

func newNew(o *options) *cobra.Command {
	var lang string
	languages := strings.Join(sdk.Languages(), ", ")
	cmd := &cobra.Command{
		Use:   "new <name>",
		Short: "Begin a rule: a folder with the rule, a test, samples and a README",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.create(cmd, lang, args[0]) },
	}
	cmd.Flags().StringVar(&lang, "lang", "go", "language: "+languages)
	return cmd
}

// created is the result of new.
type created struct {
	Rule  string   `json:"rule"`
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
}

func (o *options) create(cmd *cobra.Command, lang, name string) error {
	if !deal.ValidID(name) {
		return failf(ExitUsage, "%q cannot name a rule: 1 to 64 of A-Z a-z 0-9 _ -", name)
	}
	files, err := sdk.Project(lang, name)
	if err != nil {
		return coded(ExitUsage, err)
	}
	dir := filepath.Join(o.dir, name)
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return failf(ExitUsage, "%s is there already", dir)
	}
	result := created{Rule: name, Dir: dir, Files: slices.Sorted(maps.Keys(files))}
	for _, file := range result.Files {
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(file)), files[file]); err != nil {
			return err
		}
	}
	return o.print(cmd, result, func(out io.Writer) {
		for _, file := range result.Files {
			fmt.Fprintln(out, filepath.Join(dir, filepath.FromSlash(file)))
		}
		fmt.Fprintf(out, "\n  cd %s\n", shellWord(dir))
		if files["package-lock.json"] != nil {
			fmt.Fprintf(out, "  npm ci\n") // the compiler
		}
		fmt.Fprintf(out, "  doorbuster rule build\n  doorbuster rule check\n  doorbuster rule run\n")
	})
}

// shellWord is a path as one word for a shell.
func shellWord(path string) string {
	if !strings.ContainsAny(path, " \t\n\\'\"`$&|;<>()*?[]#~!{}") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
