package host_test

import (
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// TestInstancesAreMadeOnDemand: one when the program is made, more while
// evaluations wait for each other, and no more than may be.
func TestInstancesAreMadeOnDemand(t *testing.T) {
	const most = 3
	p := compile(t, host.Config{Instances: most}, ruleOf("loop void br 0 end"+gastest.Result, nil))
	for range 10 {
		evaluate(p, order)
	}
	if n := p.Made(); n != 1 {
		t.Fatalf("%d instances for one caller", n)
	}
	var callers sync.WaitGroup
	deadline := time.Now().Add(time.Minute)
	for range 2 * most {
		callers.Go(func() {
			for p.Made() < most && time.Now().Before(deadline) {
				if v, _ := evaluate(p, order); v.Fault != abi.FaultOutOfFuel || v.Fuel != abi.FuelDefault {
					t.Errorf("%v after %d units", v.Fault, v.Fuel)
					return
				}
			}
		})
	}
	callers.Wait()
	if n := p.Made(); n != most {
		t.Fatalf("%d instances for %d callers", n, 2*most)
	}
}

// TestCloseWhileEvaluating: every evaluation either ran or says that it did not.
func TestCloseWhileEvaluating(t *testing.T) {
	e := engine(t, host.Config{Instances: 2})
	for range 50 {
		p, err := e.Compile(t.Context(), gastest.Rule(discount("i64.const 990")).Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		var begun sync.WaitGroup
		for range 4 {
			begun.Add(1)
			callers.Go(func() {
				var v abi.Verdict
				for n := 0; p.Evaluate(order, abi.FuelDefault, &v, nil); n++ {
					if v.Fault != abi.FaultNone || v.Discount != 990 {
						t.Errorf("%v %d", v.Fault, v.Discount)
						return
					}
					if n == 0 {
						begun.Done()
					}
				}
			})
		}
		begun.Wait()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		callers.Wait()
		if err := p.Close(); err != nil {
			t.Fatal("closing twice:", err)
		}
	}
}
