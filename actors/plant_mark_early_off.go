//go:build !plant_mark_early

package actors

const plantMarkEarly = false
