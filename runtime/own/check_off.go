//go:build !owncheck

package own

// checked says whether misuse is traced and freed objects are poisoned.
const checked = false

// trace is where a Put was made; known only with the tag owncheck.
type trace struct{}

func (*trace) record()        {}
func (*trace) report() string { return "" }

func poison[T any](*T)                          {}
func unpoison[T any](_ *T, _ *Cell, _ func(*T)) {}
