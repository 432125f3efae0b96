package host

import "time"

// Made is how many instances a program has.
func (p *Program) Made() int { return int(p.made.Load()) }

// Compiling is how many compilations are under way.
func (e *Engine) Compiling() int { return len(e.compiling) }

// SetWait replaces CompileWait.
func (e *Engine) SetWait(d time.Duration) { e.cache.wait = d }

// TakeIdle is what a child does to become idle.
func TakeIdle() error { return idle.take() }
