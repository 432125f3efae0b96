//go:build wasip1

// Command goplugin is the rule tiered as a plug-in of go-plugin.
package main

import (
	"context"

	"github.com/doorbuster/doorbuster/cmd/benchmark/rules/exchange"
)

func init() { exchange.RegisterPricer(pricer{}) }

func main() {}

type pricer struct{}

// Price implements exchange.Pricer.
func (pricer) Price(_ context.Context, order *exchange.Order) (*exchange.Answer, error) {
	answer := &exchange.Answer{}
	answer.Discount, answer.Label, answer.Reason = exchange.Tiered(order.GetSubtotal()-order.GetDiscountSoFar(), order.GetQuantity())
	if answer.Reason != "" {
		answer.Outcome = 1
	}
	return answer, nil
}
