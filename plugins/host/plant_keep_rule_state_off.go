//go:build !plant_keep_rule_state

package host

const plantKeepRuleState = false
