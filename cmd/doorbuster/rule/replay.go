package rule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

func newReplay(o *options) *cobra.Command {
	var order, save string
	var recorded, debug bool
	cmd := &cobra.Command{
		Use:   "replay --order <id>",
		Short: "Run the rule here on exactly what it was told about a real order",
		Long: `Run the rule here on exactly what it was told about a real order.

The recorded input is fetched from the server, and the project's module prices it.
The command ends with exit code 1 where the answer is not the recorded one. --recorded
runs the version that priced the order, fetched from the server, in the place of the
project's module. --save writes the input as a sample. --debug then runs the project's
native test on this order alone in the language's debugger: dlv for Go, gdb for C,
rust-gdb for Rust, and node's inspector for AssemblyScript.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	cmd.Flags().StringVar(&order, "order", "", "id of the order")
	cmd.Flags().StringVar(&save, "save", "", "file to write the input to, as a sample")
	cmd.Flags().BoolVar(&recorded, "recorded", false, "run the version that priced the order")
	cmd.Flags().BoolVar(&debug, "debug", false, "run the project's native test on this order, in a debugger")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if order == "" {
			return failf(ExitUsage, "--order is required")
		}
		if debug && (recorded || o.json) {
			return failf(ExitUsage, "--debug runs the project's source and talks to a user: it goes with neither --recorded nor --json")
		}
		if err := r.connect(o); err != nil {
			return err
		}
		return o.replay(cmd, r, order, save, recorded, debug)
	}
	return cmd
}

// account is one rule's part of an order, as the server's explain call tells it.
type account struct {
	Rule     string          `json:"rule"`
	Version  uint32          `json:"version"`
	Input    json.RawMessage `json:"input"`
	InputABI string          `json:"input_abi"` // base64
	answer
}

// replayed is the result of replay.
type replayed struct {
	Order    string `json:"order_id"`
	Version  uint32 `json:"version"` // that priced the order
	Recorded answer `json:"recorded"`
	Here     answer `json:"here"`
	Same     bool   `json:"same"`
}

func (o *options) replay(cmd *cobra.Command, r *remote, order, save string, recorded, debug bool) error {
	told, err := r.account(cmd, order)
	if err != nil {
		return err
	}
	encoded, err := base64.StdEncoding.DecodeString(told.InputABI)
	if err != nil {
		return failf(ExitRefused, "order %s: input_abi: %w", order, err)
	}
	in, err := abi.DecodeInput(encoded)
	if err != nil {
		return failf(ExitRefused, "order %s: %w", order, err)
	}
	if save != "" {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, told.Input, "", "  "); err != nil {
			return coded(ExitRefused, err)
		}
		if err := writeFile(save, append(pretty.Bytes(), '\n')); err != nil {
			return err
		}
	}
	wasm, fuel, err := o.replayModule(cmd, r, told.Version, recorded)
	if err != nil {
		return err
	}
	e, err := evaluate(cmd.Context(), wasm, fuel, &in)
	if err != nil {
		return err
	}
	result := replayed{Order: order, Version: told.Version, Recorded: told.answer, Here: newAnswer(e)}
	result.Same = result.Recorded.line() == result.Here.line()
	if err := o.print(cmd, result, result.text); err != nil {
		return err
	}
	if debug {
		p, err := o.load()
		if err != nil {
			return err
		}
		if err := p.debug(cmd.Context(), order, told.Input, &told.answer, cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if !result.Same {
		return failf(ExitDifference, "the answer differs from the recorded one")
	}
	return nil
}

// account fetches the rule's part of an order.
func (r *remote) account(cmd *cobra.Command, order string) (*account, error) {
	if !deal.ValidID(order) && url.PathEscape(order) != order {
		return nil, failf(ExitUsage, "%q is not the id of an order", order)
	}
	var explained struct{ Rules []account }
	if _, err := r.get(cmd.Context(), "/api/v1/orders/"+order+"/explain", &explained); err != nil {
		return nil, err
	}
	for i := range explained.Rules {
		if explained.Rules[i].Rule == r.rule {
			return &explained.Rules[i], nil
		}
	}
	return nil, failf(ExitRefused, "order %s was not priced by %s", order, r.rule)
}

// replayModule is the module to run, and its fuel.
func (o *options) replayModule(cmd *cobra.Command, r *remote, n uint32, recorded bool) ([]byte, uint64, error) {
	if !recorded {
		p, err := o.load()
		if err != nil {
			return nil, 0, fmt.Errorf("without --recorded, the project's module is run, but %w", err)
		}
		p.warnStale(cmd.ErrOrStderr())
		wasm, err := p.wasm()
		return wasm, p.FuelLimit, err
	}
	v, err := r.version(cmd.Context(), n)
	if err != nil {
		return nil, 0, err
	}
	wasm, err := r.get(cmd.Context(), r.rulePath("/versions/"+strconv.FormatUint(uint64(n), 10)+"/wasm"), nil)
	return wasm, v.FuelLimit, err
}

func (r *replayed) text(out io.Writer) {
	fmt.Fprintf(out, "order     %s, priced by version %d\nrecorded  %s, fuel %d\n", r.Order, r.Version, r.Recorded.line(), r.Recorded.Fuel)
	fmt.Fprintf(out, "here      %s, fuel %d\n", r.Here.line(), r.Here.Fuel)
	for _, line := range r.Here.Logs {
		fmt.Fprintf(out, "log       %q\n", line)
	}
}
