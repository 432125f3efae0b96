package gas

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
)

// Policy says what a kind of module may import and how its memory is laid out.
// The rule ABI is one; a host of modules that follow another convention has its
// own. What they all share stays as it is: the bounds, the fuel, the marks.
type Policy struct {
	// Imports are the functions that a module may import, by module and name.
	Imports map[[2]string]Signature
	// Prefix stands before the names of the modules that the result imports, so that
	// two kinds of module can live in one engine.
	Prefix string
	// Foreign names a module whose memory may be imported, "" for none. Without
	// Linked the arena's region takes the place of that memory: an address that
	// the module gets from its host is an address there.
	Foreign string
	// Linked says that the module has no memory, globals or tables of its own: it
	// uses those of Foreign, a module that was rewritten with the same arena and
	// is instantiated before it.
	Linked bool
	// Arena is how the memory is laid out, nil: as the source says.
	Arena *Arena

	// rule demands the exports of the rule ABI and forbids _start.
	rule bool
}

var rulePolicy = &Policy{rule: true}

// Rules is the policy of rules, which Rewrite follows.
func Rules() *Policy { return rulePolicy }

// Signature is a function's type: value types as WebAssembly encodes them.
type Signature struct{ Params, Results string }

// policyJSON is an encoded policy.
type policyJSON struct {
	Rule            bool
	Imports         []importJSON
	Prefix, Foreign string
	Linked          bool
	Arena           *Arena
}

type importJSON struct{ Module, Name, Params, Results string }

// Encode returns the policy in bytes, which DecodePolicy reads. Equal policies have equal
// bytes.
func (p *Policy) Encode() []byte {
	e := policyJSON{p.rule, nil, p.Prefix, p.Foreign, p.Linked, p.Arena}
	for _, key := range slices.SortedFunc(maps.Keys(p.Imports), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	}) {
		e.Imports = append(e.Imports, importJSON{key[0], key[1], p.Imports[key].Params, p.Imports[key].Results})
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // it is plain
	}
	return b
}

// DecodePolicy returns the policy that was encoded.
func DecodePolicy(b []byte) (*Policy, error) {
	var e policyJSON
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	p := &Policy{map[[2]string]Signature{}, e.Prefix, e.Foreign, e.Linked, e.Arena, e.Rule}
	for _, i := range e.Imports {
		p.Imports[[2]string{i.Module, i.Name}] = Signature{i.Params, i.Results}
	}
	return p, nil
}

func (p *Policy) importable(module, name string) (funcType, bool) {
	if p.rule {
		t, ok := importable[[2]string{module, name}]
		return t, ok
	}
	s, ok := p.Imports[[2]string{module, name}]
	return funcType{s.Params, s.Results}, ok
}

func (p *Policy) memoryPages() uint32 {
	if p.Arena != nil {
		return p.Arena.Bound
	}
	return MemoryPagesMax
}

// checkLinked checks that a linked module has nothing that its host would have to
// put back.
func (s *source) checkLinked(end int) {
	if !s.foreign {
		s.fault(end, "the memory of %q must be imported", s.policy.Foreign)
	}
	if s.hasMemory || len(s.globalList) > 0 || len(s.tableList) > 0 {
		s.fault(end, "a module that uses the memory of %q has no memory, globals or tables of its own", s.policy.Foreign)
	}
}

// Outline is what a module says about itself before anybody judged it.
type Outline struct {
	Imports []Import
	Exports []Export          // functions only
	Custom  map[string][]byte // the first CustomMax custom sections; of two with one name the last
}

// Import is one import. Kind is as encoded: 0 function, 1 table, 2 memory, 3 global.
type Import struct {
	Module, Name string
	Kind         byte
}

// Export is one exported function.
type Export struct {
	Name string
	Signature
}

// CustomMax bounds the custom sections of an outline; later ones are left out.
const CustomMax = 1_000

// Read returns the outline of a module. What it cannot read it leaves out: a
// module that means to be run is judged by Rewrite. Of two sections of a kind it
// reads the first, and it reads no code.
func Read(wasm []byte) Outline {
	s := &source{policy: &Policy{}, dataCountN: -1, exportKinds: map[string]byte{}, exportIndices: map[string]uint32{}}
	o := Outline{Custom: map[string][]byte{}}
	if len(wasm) < 8 || len(wasm) > ModuleBytesMax {
		return o
	}
	r := reader{b: wasm, pos: 8, end: len(wasm), fail: s.fault}
	var read [secDataCount + 1]bool
	for custom := 0; r.more(); {
		id := r.byte()
		content := r.sub(r.u32())
		if id == secCustom {
			if custom++; custom <= CustomMax {
				name := content.name()
				o.Custom[name] = content.b[content.pos:content.end]
			}
			continue
		}
		if int(id) >= len(read) || read[id] {
			continue
		}
		read[id] = true
		switch id {
		case secType:
			s.types(&content)
		case secImport:
			o.Imports = s.outlineImports(&content)
		case secFunction:
			s.functions(&content)
		case secExport:
			o.Exports = s.outlineExports(&content)
		}
	}
	return o
}

func (s *source) outlineImports(r *reader) (list []Import) {
	for n := r.count("imports", ImportsMax, 4); n > 0 && r.more(); n-- {
		i := Import{Module: r.name(), Name: r.name(), Kind: r.byte()}
		switch i.Kind {
		case 0:
			s.importTypes = append(s.importTypes, r.u32())
		case 1:
			r.refType()
			r.limits("table", TableEntriesMax)
		case 2:
			r.limits("memory", MemoryPagesMax)
		case 3:
			r.valueType()
			r.byte()
		default:
			r.failf("unknown kind %d", i.Kind)
		}
		list = append(list, i)
	}
	return list
}

func (s *source) outlineExports(r *reader) (list []Export) {
	for n := r.count("exports", ExportsMax, 3); n > 0 && r.more(); n-- {
		name, kind, index := r.name(), r.byte(), r.u32()
		if t, ok := s.typeOf(index); ok && kind == 0 {
			list = append(list, Export{name, Signature{t.params, t.results}})
		}
	}
	return list
}

// AppendCustom adds a custom section to a module.
func AppendCustom(wasm []byte, name string, content []byte) []byte {
	var section out
	section.vector([]byte(name))
	o := out{b: wasm}
	o.section(secCustom, append(section.b, content...))
	return o.b
}
