//go:build !linux

package main

import "github.com/doorbuster/doorbuster/clockd"

func reserveHugePages() {}

func followGrowth(*clockd.Clock) {}
