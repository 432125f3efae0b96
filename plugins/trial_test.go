package plugins_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

func TestTrial(t *testing.T) {
	wasm, err := os.ReadFile("house/tiered.wasm")
	if err != nil {
		t.Fatal(err)
	}
	trial, err := plugins.NewTrial(t.Context(), wasm, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	e := trial.Evaluate(&abi.Input{UnitPrice: 9900, Subtotal: 9900, Quantity: 1})
	if e.Fault != abi.FaultNone || e.Discount != 990 || e.Fuel == 0 || trial.FuelLimit() != abi.FuelDefault || len(trial.Imports()) != 0 {
		t.Errorf("%+v, imports %q", e, trial.Imports())
	}
	if ns := trial.Time(&abi.Input{Quantity: 1}); ns <= 0 || ns > 1e9 {
		t.Errorf("an evaluation takes %d ns", ns)
	}
	logging, err := plugins.NewTrial(t.Context(), gastest.Rule(gastest.Result).WithImport("doorbuster", "log", gastest.TypeLog).Encode(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer logging.Close()
	if got := logging.Imports(); !slices.Equal(got, []string{"doorbuster.log"}) {
		t.Errorf("imports %q", got)
	}
	short, err := plugins.NewTrial(t.Context(), wasm, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if e := short.Evaluate(&abi.Input{Quantity: 1}); e.Fault != abi.FaultOutOfFuel || e.FaultDetail == "" {
		t.Errorf("%+v", e)
	}
	if _, err := plugins.NewTrial(t.Context(), wasm, abi.FuelMax+1); !errors.Is(err, plugins.ErrBadFuelLimit) {
		t.Error(err)
	}
	if _, err := plugins.NewTrial(t.Context(), wasm[:9], 0); !errors.As(err, new(*plugins.InvalidError)) {
		t.Error(err)
	}
}
