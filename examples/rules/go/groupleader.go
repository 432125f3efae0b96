package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

const (
	leaderBasisPoints                  = 500
	leaderMin         doorbuster.Money = 100
	leaderMax         doorbuster.Money = 2_000
	leaderGroupSize                    = 3
)

// groupLeader gives a bonus to whoever opens a group.
func groupLeader(in *doorbuster.Input) doorbuster.Output {
	if !in.OpensGroup || in.GroupSize < leaderGroupSize {
		return doorbuster.Nothing()
	}
	bonus := in.Payable().ShareDown(leaderBasisPoints)
	return in.Discount(min(max(bonus, leaderMin), leaderMax), "Group leader bonus", "group_leader")
}
