// Package sdk holds the kits that promotion rules are written with, as files,
// and makes new projects of them. README.md says what a kit and a project hold.
package sdk

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

//go:embed template
//go:embed go/*.go go/rulestest/*.go all:go/template
//go:embed assemblyscript/*.ts assemblyscript/*.mjs assemblyscript/*.json all:assemblyscript/template
//go:embed rust/*.rs all:rust/template
//go:embed c/*.h all:c/template
var files embed.FS

// kitFolder is where a project has its copy of the kit.
const kitFolder = "doorbuster"

// language is how one language's kit becomes part of a project.
type language struct {
	name string
	kit  []string // files of the kit, below the language's folder
	root []string // files there that stand in the project's own folder
}

var languages = []language{
	{name: "go", kit: []string{"doorbuster.go", "export_wasip1.go", "money.go", "rulestest/rulestest.go", "text.go", "wire.go"}},
	{
		name: "assemblyscript", kit: []string{"doorbuster.ts", "doorbuster_test.ts", "doorbuster_test.mjs"},
		root: []string{"asconfig.json", "package.json", "package-lock.json"},
	},
	{name: "rust", kit: []string{"doorbuster.rs", "doorbuster_test.rs"}},
	{name: "c", kit: []string{"doorbuster.h", "doorbuster_test.h"}},
}

// Languages returns the names of the languages that there is a kit for.
func Languages() []string {
	var names []string
	for _, l := range languages {
		names = append(names, l.name)
	}
	return names
}

// Project returns the files of a new project for the rule with that id, by their
// slash-separated paths.
func Project(lang, name string) (map[string][]byte, error) {
	i := slices.IndexFunc(languages, func(l language) bool { return l.name == lang })
	if i < 0 {
		return nil, fmt.Errorf("there is no kit for %q, but for %s", lang, strings.Join(Languages(), ", "))
	}
	l := languages[i]
	project := map[string][]byte{}
	for _, folder := range []string{"template", path.Join(l.name, "template")} {
		if err := addTemplate(project, folder, name); err != nil {
			return nil, err
		}
	}
	for _, file := range slices.Concat(l.kit, l.root) {
		source, err := files.ReadFile(path.Join(l.name, file))
		if err != nil {
			return nil, err
		}
		if slices.Contains(l.kit, file) {
			file = path.Join(kitFolder, file)
		}
		project[file] = ownImports(source, name)
	}
	return project, addTable(project)
}

// addTable adds vectors.tsv, for the languages whose kits read no JSON.
func addTable(project map[string][]byte) error {
	vectors, err := rules.Decode(project["vectors.json"])
	if err != nil {
		return err
	}
	if err := vectors.Encode(); err != nil {
		return err
	}
	project["vectors.tsv"], err = vectors.Table()
	return err
}

// addTemplate adds the files of a template folder, filled in.
func addTemplate(project map[string][]byte, folder, name string) error {
	return fs.WalkDir(files, folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		source, err := files.ReadFile(file)
		if err != nil {
			return err
		}
		into, filled := strings.CutSuffix(strings.TrimPrefix(file, folder+"/"), ".tmpl")
		if filled {
			if source, err = fill(file, source, name); err != nil {
				return err
			}
		}
		project[into] = source
		return nil
	})
}

func fill(file string, source []byte, name string) ([]byte, error) {
	parsed, err := template.New(file).Parse(string(source))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = parsed.Execute(&b, struct{ Name string }{name})
	return b.Bytes(), err
}

// ownImports makes a Go kit import its own packages as the project's.
func ownImports(source []byte, name string) []byte {
	const here = `"github.com/doorbuster/doorbuster/plugins/sdk/go`
	return bytes.ReplaceAll(source, []byte(here), []byte(`"rules/`+name+`/`+kitFolder))
}
