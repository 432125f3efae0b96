package host

import "github.com/doorbuster/doorbuster/plugins/gas"

// codePerByte is how many bytes of machine code a byte of a rewritten module comes
// to; dense arithmetic makes about that many.
const codePerByte = 4

// CodeBytes returns about how much memory the code of a rewritten module takes.
func CodeBytes(m *gas.Module) int { return codePerByte * m.Size }

// Footprint returns how many bytes of memory the program may come to hold while it
// is loaded: its code, its memory once for each instance, and that memory as it was
// at first.
func (p *Program) Footprint() int {
	return CodeBytes(p.module) + (1+len(p.slots))*len(p.initial.memory)
}
