package host

// Made is how many instances a program has.
func (p *Program) Made() int { return int(p.made.Load()) }
