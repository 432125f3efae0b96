//go:build !plant_ack_early

package actors

const plantAckEarly = false
