//go:build plant_keep_quota

package deal

// plantKeepQuota is a bug on purpose, for proof that the tests find it: the build
// does not give a cancelled order's units back to its user.
const plantKeepQuota = true
