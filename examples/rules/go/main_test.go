package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/sdk/go/rulestest"
)

const vectors = "../../../plugins/sdk/rules/vectors/"

// TestRules runs the twelve rules as plain Go.
func TestRules(t *testing.T) {
	for name, rule := range ruleByName {
		t.Run(name, func(t *testing.T) { rulestest.Vectors(t, vectors+name+".json", rule) })
	}
	files, err := filepath.Glob(vectors + "*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		if _, ok := ruleByName[name]; !ok && name != "money" {
			t.Errorf("%s has vectors and no rule here", name)
		}
	}
}
