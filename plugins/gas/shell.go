package gas

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// sources are those of this package that decide what becomes of a module.
//
//go:embed abi.go arena.go body.go decode.go fixed.go gas.go helpers.go instruction.go pages.go policy.go reader.go rewrite.go shell.go
var sources embed.FS

// Revision names what this package makes of modules: what another revision has made of
// one may differ.
func Revision() string {
	sum := sha256.New()
	entries, err := sources.ReadDir(".")
	for _, entry := range entries {
		var text []byte
		if text, err = sources.ReadFile(entry.Name()); err != nil {
			break
		}
		fmt.Fprintf(sum, "%s %d\n%s", entry.Name(), len(text), text)
	}
	if err != nil {
		panic(err) // they are in the binary
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// emptyBody is the body of a function that traps, behind its length: no locals,
// unreachable, end.
var emptyBody = []byte{3, 0, 0, opEnd}

// Shell returns the rewritten module without its code: every function traps. An engine
// that has compiled the module needs no more of it to run the compiled code, and checks
// this much sooner. The shells of two modules differ, and those of one under two names.
func (m *Module) Shell(name string) ([]byte, error) {
	shell := out{b: bytes.Clone(m.Wasm[:len(header)])}
	var failed bool
	r := reader{b: m.Wasm, pos: len(header), end: len(m.Wasm), fail: func(int, string, ...any) { failed = true }}
	for r.more() {
		from := r.pos
		id := r.byte()
		content := r.sub(r.u32())
		if id != secCode {
			shell.b = append(shell.b, m.Wasm[from:r.pos]...)
			continue
		}
		var code out
		n := content.u32()
		code.u32(n)
		for range n {
			code.b = append(code.b, emptyBody...)
		}
		shell.section(secCode, code.b)
	}
	if failed {
		return nil, errors.New("gas: this is no rewritten module")
	}
	sum := sha256.Sum256(m.Wasm)
	return AppendCustom(shell.b, reservedPrefix+"code", append(sum[:], name...)), nil
}

// moduleJSON is what an encoded module says of itself.
type moduleJSON struct {
	Size                 int
	Pages                Pages
	Mutable, Imports     []string
	Initialize, RuleInit bool
	Fixed                [2]uint32
	Parts                uint64
}

// Encode returns the module in bytes, which DecodeModule reads, without Wasm.
func (m *Module) Encode() []byte {
	b, err := json.Marshal(moduleJSON{m.Size, m.Pages, m.Mutable, m.Imports, m.Initialize, m.RuleInit, [2]uint32{m.fixed.at, m.fixed.end}, m.parts})
	if err != nil {
		panic(err) // it is plain
	}
	return b
}

// DecodeModule returns the module that was encoded. It refuses what no module says of
// itself.
func DecodeModule(b []byte) (*Module, error) {
	var e moduleJSON
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	m := &Module{
		Size: e.Size, Pages: e.Pages, Mutable: e.Mutable, Imports: e.Imports, Initialize: e.Initialize, RuleInit: e.RuleInit,
		fixed: span{e.Fixed[0], e.Fixed[1]}, parts: e.Parts,
	}
	finest, coarsest := pagesFor(0).Shift, pagesFor(MemoryPagesMax).Shift
	if m.Size < 0 || m.Size > RewrittenMax || m.Pages.Shift < finest || m.Pages.Shift > coarsest ||
		len(m.Mutable) > MutableMax || len(m.Imports) > ImportsMax ||
		m.fixed.at > m.fixed.end || m.fixed.end-m.fixed.at > fixedBytesMax {
		return nil, errors.New("gas: no module is like that")
	}
	return m, nil
}

// Fits says whether a memory of so many bytes has all that Restore puts back without a
// mark.
func (m *Module) Fits(memory int) bool { return int(m.fixed.end) <= memory }
