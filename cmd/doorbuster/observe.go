package main

import (
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/obs"
	"github.com/doorbuster/doorbuster/runtime/own"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// observe registers what the parts count by themselves; it is read when a
// scraper asks.
func (s *server) observe() {
	m := s.metrics
	m.Clock(s.clock.Stats)
	m.Pool("requests", func() own.Stats { return s.node.Stats().Pool })
	m.Gauge("deals", "Deals that the node knows, in memory or not.", nil, func() float64 { return float64(s.node.Stats().Deals) })
	m.Gauge("deals_active", "Deals that are in memory, with all that they hold.", nil, func() float64 { return float64(s.node.Stats().Active) })
	m.Gauge("mailbox_depth", "Requests that wait in a deal's mailbox or for its journal.", nil,
		func() float64 { return float64(s.node.Stats().Waiting) })
	m.Counter("mailbox_turns_total", "Turns in which a deal took all that waited in its mailbox.", nil,
		func() float64 { return float64(s.node.Stats().Turns) })
	m.Counter("mailbox_wait_seconds_total", "Seconds that the longest-waiting request of each turn was in its mailbox, all turns together.", nil,
		func() float64 { return s.node.Stats().TurnsWaited.Seconds() })
	s.observeJournal()
	s.observeHooks()
	s.observeRules()
	s.observeCluster()
}

func (s *server) observeJournal() {
	m := s.metrics
	m.Gauge("journal_read_only", "1 while the disk is nearly full and no order is taken.", nil, func() float64 {
		if s.store.Stats().ReadOnly {
			return 1
		}
		return 0
	})
	m.Gauge("journal_disk_free_bytes", "Free space of the data folder's disk, in bytes.", nil,
		func() float64 { return float64(s.store.Stats().DiskFree) })
	m.Gauge("journal_streams_corrupt", "Deals whose journal was found damaged since the start.", nil,
		func() float64 { return float64(s.store.Stats().Corrupt) })
	m.Counter("journal_refused_total", "Appends that were fenced, or refused for a full disk or a damaged stream.", nil,
		func() float64 { return float64(s.store.Stats().Refused) })
	m.Counter("journal_disk_bytes_total", "Bytes that the store has written to the disk, for the log, tables and compaction together.", nil,
		func() float64 { return float64(s.store.Stats().BytesWritten) })
}

// observeHooks sums up over the webhooks: their names come from merchants.
func (s *server) observeHooks() {
	gauge := func(name, help string, figure func(webhook.Stats) int) {
		s.metrics.Gauge(name, help, nil, func() float64 { return float64(figure(s.hooks.Stats())) })
	}
	counter := func(name, help string, figure func(webhook.Stats) uint64) {
		s.metrics.Counter(name, help, nil, func() float64 { return float64(figure(s.hooks.Stats())) })
	}
	gauge("webhooks", "Webhooks that merchants have set.", func(st webhook.Stats) int { return st.Hooks })
	gauge("webhooks_failing", "Webhooks whose last delivery failed.", func(st webhook.Stats) int { return st.Failing })
	gauge("webhooks_disabled", "Webhooks that are switched off because they failed for too long.", func(st webhook.Stats) int { return st.Disabled })
	gauge("webhook_topics_waiting", "Deals with news that a webhook was not told yet.", func(st webhook.Stats) int { return st.Waiting })
	counter("webhook_events_delivered_total", "Events that the receivers of webhooks have taken.", func(st webhook.Stats) uint64 { return st.Delivered })
	counter("webhook_deliveries_failed_total", "Deliveries that the receiver of a webhook did not take; each is tried again.", func(st webhook.Stats) uint64 { return st.Failed })
	counter("webhook_events_dropped_total", "Events that no deal holds, such as those about rules, and that gave way to newer ones before they were delivered.", func(st webhook.Stats) uint64 { return st.Dropped })
}

// observeRules sums up over the rules: their names come from merchants, so
// they are no labels.
func (s *server) observeRules() {
	sum := func(figure func(plugins.RuleStats) uint64) func() float64 {
		return func() (total float64) {
			s.rules.Stats(func(r plugins.RuleStats) { total += float64(figure(r)) })
			return total
		}
	}
	m := s.metrics
	m.Counter("orders_left_out_total", "Orders that a list lacked because their deal could not serve.", nil,
		func() float64 { return float64(s.node.Stats().LeftOut) })
	m.Counter("rules_switched_off_total", "Rules that kept failing and were switched off for a deal.", nil,
		func() float64 { return float64(s.node.Stats().RulesOff) })
	m.Counter("rule_shadows_missed_total", "Orders that a candidate in the shadow was not run for, because there was no time.", nil,
		func() float64 { return float64(s.rules.ShadowsMissed()) })
	m.Gauge("rules_not_runnable", "Versions of rules that should price orders and could not be compiled.", nil,
		func() float64 { return float64(s.rules.NotRunnable()) })
	m.Counter("rule_calls_total", "Evaluations of rules for orders and quotes.", nil, sum(func(r plugins.RuleStats) uint64 { return r.Calls }))
	m.Counter("rule_fuel_total", "Fuel that the evaluations of rules have used, in units of the rule ABI.", nil, sum(func(r plugins.RuleStats) uint64 { return r.Fuel }))
	for fault := abi.FaultOutOfFuel; fault <= abi.FaultRuleInit; fault++ {
		m.Counter("rule_faults_total", "Evaluations of rules that gave no result, by fault.", obs.Labels{"fault": fault.String()},
			sum(func(r plugins.RuleStats) uint64 { return r.Faults[fault] }))
	}
}
