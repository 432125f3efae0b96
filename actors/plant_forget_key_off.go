//go:build !plant_forget_key

package actors

const plantForgetKey = false
