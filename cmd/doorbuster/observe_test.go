package main

import (
	"testing"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
)

// TestNothingIsTracedUnlessAsked: a server that is told of no collector watches no order,
// and one that is told of nothing else watches few.
func TestNothingIsTracedUnlessAsked(t *testing.T) {
	const shareMost = 0.001 // of the orders
	for _, collector := range []string{"", "http://127.0.0.1:1"} {
		cfg := config.Default()
		cfg.Listen, cfg.Admin, cfg.Data = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
		if collector != "" {
			cfg.TraceEndpoint = collector
		}
		must(t, cfg.Validate())
		s, err := startServer(t.Context(), cfg, t.Output())
		must(t, err)
		if traced := s.tracer != nil; traced != (collector != "") || s.cfg.TraceSample > shareMost || s.cfg.TraceTrust {
			t.Errorf("with the collector %q: traced: %t, a share of %v, trust: %t", collector, traced, s.cfg.TraceSample, s.cfg.TraceTrust)
		}
		s.close()
	}
}
