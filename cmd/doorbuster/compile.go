package main

import (
	"os"
	"path/filepath"

	rulehost "github.com/doorbuster/doorbuster/plugins/host"
)

// compileRule is the command that a server runs to have one rule compiled. It is
// nobody else's business: it has no flags and is not in the help.
const compileRule = "compile-rule"

// compileOne is the command. It returns the exit code.
func compileOne() int { return rulehost.CompileChild(os.Args[2:], os.Stdin, os.Stdout) }

// compiler has rules compiled by this same binary, which stays the same while the
// server runs even when an upgrade has replaced its file, into the data folder. It
// rests half of the time while busy says so.
func compiler(data string, busy func() bool) rulehost.Config {
	return rulehost.Config{Compiler: []string{"/proc/self/exe", compileRule}, Cache: filepath.Join(data, "compiled"), Busy: busy}
}
