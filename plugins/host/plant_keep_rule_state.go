//go:build plant_keep_rule_state

package host

// plantKeepRuleState is a bug on purpose, for proof that the tests find it: the build
// leaves a rule's memory as the last order left it.
const plantKeepRuleState = true
