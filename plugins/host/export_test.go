package host

// Made is how many instances a program has.
func (p *Program) Made() int { return int(p.made.Load()) }

// Compiling is how many compilations are under way.
func (e *Engine) Compiling() int { return len(e.compiling) }
