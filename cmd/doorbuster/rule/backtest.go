package rule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

func newBacktest(o *options) *cobra.Command {
	t := &backtest{options: o}
	cmd := &cobra.Command{
		Use:   "backtest --deal <id>",
		Short: "Try a version on the recorded orders of a deal",
		Long: `Try a version on the recorded orders of a deal: how many would have cost something
else, and what that comes to. Nothing is changed on the server. The version stands where
the deal names its rule, or behind all rules of a deal that does not.

--rows writes a line of JSON for each order that differs, --svg the two histograms.
With --expect-same the command ends with exit code 1 when any order differs.`,
		Args: cobra.NoArgs,
	}
	t.remote = addRemote(cmd)
	flags := cmd.Flags()
	flags.Uint32Var(&t.version, "version", 0, "version to try (default: the newest)")
	flags.StringVar(&t.DealID, "deal", "", "the deal whose orders are priced again")
	flags.StringVar(&t.From, "from", "", "orders placed at this time or later, RFC 3339")
	flags.StringVar(&t.To, "to", "", "orders placed before this time, RFC 3339")
	flags.StringVar(&t.rows, "rows", "", "file for the orders that differ, as lines of JSON")
	flags.StringVar(&t.svg, "svg", "", "file for the histograms")
	flags.BoolVar(&t.same, "expect-same", false, "fail when any order differs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if t.DealID == "" {
			return failf(ExitUsage, "--deal is required")
		}
		if err := t.remote.connect(o); err != nil {
			return err
		}
		return t.run(cmd)
	}
	return cmd
}

// backtest is one call of the command. Its exported fields are the request.
type backtest struct {
	*options
	remote    *remote
	version   uint32
	rows, svg string
	same      bool

	DealID string
	From   string
	To     string

	summary json.RawMessage
}

// summary is what a backtest comes to, as the server shows it.
type summary struct {
	DealID             string            `json:"deal_id"`
	RuleID             string            `json:"rule_id"`
	Version            uint32            `json:"version"`
	Currency           string            `json:"currency"`
	Orders             uint64            `json:"orders"`
	Changed            uint64            `json:"changed"`
	Cheaper            uint64            `json:"cheaper"`
	Dearer             uint64            `json:"dearer"`
	Refused            uint64            `json:"refused"`
	Recorded           sums              `json:"recorded"`
	Candidate          sums              `json:"candidate"`
	RevenueDifference  int64             `json:"revenue_difference"`
	DiscountDifference int64             `json:"discount_difference"`
	Faults             map[string]uint64 `json:"faults"`
	Fuel               struct {
		P50 uint64 `json:"p50"`
		P99 uint64 `json:"p99"`
		Max uint64 `json:"max"`
	} `json:"fuel"`
	Distribution struct {
		Change   []bucket `json:"change"`
		Discount []bucket `json:"discount"`
	} `json:"distribution"`
	Milliseconds int64 `json:"duration_ms"`
	Added        bool  `json:"added"`
}

type sums struct {
	Revenue  int64 `json:"revenue"`
	Discount int64 `json:"discount"`
}

// bucket counts orders from one share of the subtotal, in per cent, to another.
// Those of the change have Orders, those of the discount the two others.
type bucket struct {
	From      int    `json:"from"`
	To        int    `json:"to"`
	Orders    uint64 `json:"orders"`
	Recorded  uint64 `json:"recorded"`
	Candidate uint64 `json:"candidate"`
}

func (t *backtest) run(cmd *cobra.Command) error {
	if t.version == 0 {
		var s state
		if _, err := t.remote.get(cmd.Context(), t.remote.rulePath(""), &s); err != nil {
			return err
		}
		t.version = s.Latest
	}
	if err := t.fetch(cmd); err != nil {
		return err
	}
	var s summary
	if err := json.Unmarshal(t.summary, &s); err != nil {
		return coded(ExitRefused, err)
	}
	if t.svg != "" {
		if err := writeFile(t.svg, s.histograms()); err != nil {
			return err
		}
	}
	if err := t.print(cmd, t.summary, s.text); err != nil {
		return err
	}
	if t.same && s.Changed > 0 {
		return failf(ExitDifference, "%d of %s differ", s.Changed, orders(s.Orders))
	}
	return nil
}

// fetch has the server run the backtest, and keeps the summary and, in their
// file, the rows.
func (t *backtest) fetch(cmd *cobra.Command) error {
	ask := map[string]string{"deal_id": t.DealID}
	for name, value := range map[string]string{"from": t.From, "to": t.To} {
		if value != "" {
			ask[name] = value
		}
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	rows := bufio.NewWriter(io.Discard)
	var file *os.File
	path := t.remote.rulePath("/versions/" + strconv.FormatUint(uint64(t.version), 10) + "/backtest")
	err = t.remote.lines(cmd.Context(), request{method: http.MethodPost, path: path, body: body}, func(line []byte) error {
		if t.rows != "" && file == nil { // a backtest that was refused leaves the rows of the last one
			var err error
			if file, err = os.Create(t.rows); err != nil {
				return coded(ExitUsage, err)
			}
			rows.Reset(file)
		}
		return t.line(line, rows)
	})
	if err == nil && t.summary == nil {
		err = failf(ExitUnreachable, "the server ended the backtest without a summary")
	}
	err = errors.Join(err, rows.Flush())
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	return err
}

func (t *backtest) line(line []byte, rows *bufio.Writer) error {
	var head struct{ Type, Code, Detail string }
	if err := json.Unmarshal(line, &head); err != nil {
		return coded(ExitRefused, err)
	}
	switch head.Type {
	case "summary":
		t.summary = append(json.RawMessage(nil), line...)
	case "error":
		return failf(ExitRefused, "the backtest ended early: %s: %s", head.Code, head.Detail)
	default:
		_, err1 := rows.Write(line)
		err2 := rows.WriteByte('\n')
		return errors.Join(err1, err2)
	}
	return nil
}

// orders says how many there are.
func orders(n uint64) string {
	if n == 1 {
		return "1 order"
	}
	return fmt.Sprintf("%d orders", n)
}

func (s *summary) text(out io.Writer) {
	fmt.Fprintf(out, "%s version %d on %s of %s, in %d ms\n", s.RuleID, s.Version, orders(s.Orders), s.DealID, s.Milliseconds)
	if s.Added {
		fmt.Fprintf(out, "added     %s does not name %s: it ran behind all rules of the deal\n", s.DealID, s.RuleID)
	}
	fmt.Fprintf(out, "changed   %d: %d cheaper, %d dearer, %d refused\n", s.Changed, s.Cheaper, s.Dearer, s.Refused)
	fmt.Fprintf(out, "revenue   %d → %d, %+d, in minor units of %s\n", s.Recorded.Revenue, s.Candidate.Revenue, s.RevenueDifference, s.Currency)
	fmt.Fprintf(out, "discount  %d → %d, %+d\n", s.Recorded.Discount, s.Candidate.Discount, s.DiscountDifference)
	fmt.Fprintf(out, "fuel      p50 %d, p99 %d, at most %d\n", s.Fuel.P50, s.Fuel.P99, s.Fuel.Max)
	for _, kind := range slices.Sorted(maps.Keys(s.Faults)) {
		if n := s.Faults[kind]; n > 0 {
			fmt.Fprintf(out, "faults    %d %s\n", n, kind)
		}
	}
	fmt.Fprintf(out, "shoppers pay, of the subtotal\n")
	for _, b := range s.Distribution.Change {
		if b.Orders > 0 {
			fmt.Fprintf(out, "  %-20s %s\n", b.label(), orders(b.Orders))
		}
	}
}

// label says what a shopper pays more or less.
func (b *bucket) label() string {
	switch {
	case b.From < 0:
		return fmt.Sprintf("%d to %d%% less", -b.To, -b.From)
	case b.To > 0:
		return fmt.Sprintf("%d to %d%% more", b.From, b.To)
	}
	return "the same"
}
