package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/doorbuster/doorbuster/cmd/benchmark/rules/exchange"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// patience is what the contestants that have no fuel give one evaluation: as long as a
// busy machine may keep it waiting, because what comes too late is closed for good.
const patience = 10 * time.Second

// pricer is a contestant at work.
type pricer interface {
	// price fills the outcome, the discount and the texts of out.
	price(ctx context.Context, in *abi.Input, out *abi.Verdict) error
	close() error
}

// contestant is one way to run the rule.
type contestant struct {
	name  string
	guest string // its language, then its source from the engine's root; "" = native
	notes string // what an evaluation leaves behind, and what stops one

	language string
	open     func(ctx context.Context, wasm string) (pricer, error)

	missing error // why it could not be built or opened here
	pricer  pricer
	batch   int // evaluations in a row between two looks at the clock
	rounds  []figures
}

// figures are of one evaluation.
type figures struct{ nanoseconds, allocations float64 }

// Sources of the rule, from the engine's root.
const (
	inC              = "examples/rules/c/tiered.c"
	inRust           = "examples/rules/rust/tiered.rs"
	inAssemblyScript = "examples/rules/assemblyscript/tiered.ts"
	inGo             = "examples/rules/go/main.go"
)

// contestants in the order of their turns. The first is what the others are
// compared to.
func contestants() []*contestant {
	const exact, kept, fresh = "exact reset, fuel", "state is kept, a deadline", "a fresh instance, a deadline"
	return []*contestant{
		{name: "this engine", language: "C", guest: inC, notes: exact, open: openEngine},
		{name: "this engine", language: "Rust", guest: inRust, notes: exact, open: openEngine},
		{name: "this engine", language: "AssemblyScript", guest: inAssemblyScript, notes: exact, open: openEngine},
		{name: "this engine", language: "Go", guest: inGo, notes: exact, open: openEngine},
		{name: "native Go", language: "-", notes: "no sandbox", open: openNative},
		{name: "wazero with CloseOnContextDone", language: "C", guest: inC, notes: kept, open: openWazero},
		{name: "protobuf over wazero with CloseOnContextDone", language: "C", guest: "cmd/benchmark/rules/guests/protobuf.c", notes: kept, open: openProtobuf},
		{name: "JSON over WASI, wazero", language: "C", guest: "cmd/benchmark/rules/guests/wasi.c", notes: fresh, open: openWASI},
		{name: "JSON, Extism go-sdk v1.7.1", language: "C", guest: "cmd/benchmark/rules/guests/extism.c", notes: kept, open: openExtism},
		{name: "protobuf, knqyf263/go-plugin v0.9.0", language: "Go", guest: "cmd/benchmark/rules/goplugin/main.go", notes: "state is kept, nothing stops it", open: openGoPlugin},
	}
}

// engine is the product's.
type engine struct {
	engine  *host.Engine
	program *host.Program
}

func openEngine(ctx context.Context, wasm string) (pricer, error) {
	code, err := os.ReadFile(wasm)
	if err != nil {
		return nil, err
	}
	e, err := host.New(host.Config{})
	if err != nil {
		return nil, err
	}
	p, err := e.Compile(ctx, code, nil)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &engine{e, p}, nil
}

func (e *engine) price(_ context.Context, in *abi.Input, out *abi.Verdict) error {
	if !e.program.Evaluate(in, abi.FuelDefault, out, nil) || out.Fault != abi.FaultNone {
		return fmt.Errorf("fault %s", out.Fault)
	}
	return nil
}

func (e *engine) close() error { return errors.Join(e.program.Close(), e.engine.Close()) }

// native is the rule without a host.
type native struct{ label, reason []byte }

func openNative(context.Context, string) (pricer, error) { return &native{}, nil }

func (n *native) price(_ context.Context, in *abi.Input, out *abi.Verdict) error {
	discount, label, reason := exchange.Tiered(in.Subtotal-in.DiscountSoFar, in.Quantity)
	if reason == "" {
		out.SetOutput(abi.Output{})
		return nil
	}
	n.label, n.reason = append(n.label[:0], label...), append(n.reason[:0], reason...)
	out.SetOutput(abi.Output{Outcome: abi.OutcomeDiscount, Discount: discount, Label: n.label, Reason: n.reason})
	return nil
}

func (n *native) close() error { return nil }

// guest is a module on wazero as it comes.
type guest struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	module   api.Module // nil: one for each evaluation
	price    api.Function
	buffer   uint32
	stack    [1]uint64
	scratch  []byte
}

// load compiles a module in a runtime of its own. imports may be nil.
func load(ctx context.Context, wasm string, imports func(context.Context, wazero.Runtime) error) (_ *guest, err error) {
	code, err := os.ReadFile(wasm)
	if err != nil {
		return nil, err
	}
	g := &guest{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true))}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if imports != nil {
		if err := imports(ctx, g.runtime); err != nil {
			return nil, err
		}
	}
	g.compiled, err = g.runtime.CompileModule(ctx, code)
	return g, err
}

// start makes the one instance, with the exports that exchange an input.
func (g *guest) start(ctx context.Context, price, buffer string, size ...uint64) (err error) {
	if g.module, err = g.runtime.InstantiateModule(ctx, g.compiled, wazero.NewModuleConfig().WithStartFunctions()); err != nil {
		return err
	}
	address, err := g.module.ExportedFunction(buffer).Call(ctx, size...)
	if err != nil {
		return err
	}
	g.price, g.buffer = g.module.ExportedFunction(price), uint32(address[0])
	return nil
}

// call runs the rule on the first n bytes of the buffer and returns the place of
// its answer: address << 32 | bytes.
func (g *guest) call(ctx context.Context, n int) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g.stack[0] = uint64(n)
	err := g.price.CallWithStack(ctx, g.stack[:])
	return g.stack[0], err
}

func (g *guest) memory() []byte {
	b, _ := g.module.Memory().Read(0, g.module.Memory().Size())
	return b
}

func (g *guest) close() error { return g.runtime.Close(context.Background()) }

// plain is the rule ABI on wazero: no fuel, no reset.
type plain struct{ *guest }

func openWazero(ctx context.Context, wasm string) (pricer, error) {
	g, err := load(ctx, wasm, nil)
	if err != nil {
		return nil, err
	}
	if err := g.start(ctx, "rule_evaluate", "rule_buffer", abi.InputBytesMax); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return plain{g}, nil
}

func (p plain) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	input, err := in.Append(p.memory()[p.buffer : p.buffer : p.buffer+abi.InputBytesMax])
	if err != nil {
		return err
	}
	place, err := p.call(ctx, len(input))
	if err != nil {
		return err
	}
	return out.DecodeOutput(p.memory(), place, in.Subtotal-in.DiscountSoFar)
}

// messages exchanges protobuf with a guest that reads it by hand.
type messages struct{ *guest }

func openProtobuf(ctx context.Context, wasm string) (pricer, error) {
	g, err := load(ctx, wasm, nil)
	if err != nil {
		return nil, err
	}
	if err := g.start(ctx, "price", "buffer"); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return messages{g}, nil
}

func (m messages) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	order := message(in)
	n, err := order.MarshalToSizedBufferVT(m.room(order.SizeVT()))
	if err != nil {
		return err
	}
	copy(m.memory()[m.buffer:], m.scratch[:n])
	place, err := m.call(ctx, n)
	if err != nil {
		return err
	}
	b, ok := m.module.Memory().Read(uint32(place>>32), uint32(place))
	if !ok {
		return errors.New("the answer is out of bounds")
	}
	var answer exchange.Answer
	if err := answer.UnmarshalVT(b); err != nil {
		return err
	}
	return setAnswer(out, &answer)
}

// room returns n bytes of scratch.
func (g *guest) room(n int) []byte {
	if cap(g.scratch) < n {
		g.scratch = make([]byte, n)
	}
	return g.scratch[:n]
}

func message(in *abi.Input) *exchange.Order {
	order := &exchange.Order{
		Flags: uint32(in.Flags), Now: in.Now, UnitPrice: in.UnitPrice, Subtotal: in.Subtotal, DiscountSoFar: in.DiscountSoFar,
		Quantity: in.Quantity, UserQuantity: in.UserQuantity, Available: in.Available, Stock: in.Stock,
		StartsAt: in.StartsAt, EndsAt: in.EndsAt, GroupSize: in.GroupSize, GroupMembers: in.GroupMembers,
		Currency: string(in.Currency[:]), DealId: string(in.DealID), UserId: string(in.UserID),
	}
	for _, code := range in.Codes {
		order.Codes = append(order.Codes, string(code))
	}
	return order
}

// setAnswer checks what the rule ABI's decoder checks of the amounts.
func setAnswer(out *abi.Verdict, answer *exchange.Answer) error {
	if answer.GetOutcome() > uint32(abi.OutcomeReject) || len(answer.GetLabel()) > abi.LabelBytesMax || len(answer.GetReason()) > abi.ReasonBytesMax {
		return abi.ErrBadOutput
	}
	out.SetOutput(abi.Output{Outcome: abi.Outcome(answer.GetOutcome()), Discount: answer.GetDiscount(), Label: []byte(answer.GetLabel()), Reason: []byte(answer.GetReason())})
	return nil
}

// jsonOrder and jsonAnswer are the messages as JSON.
type jsonOrder struct {
	Flags         uint16   `json:"flags"`
	Now           int64    `json:"now"`
	UnitPrice     int64    `json:"unit_price"`
	Subtotal      int64    `json:"subtotal"`
	DiscountSoFar int64    `json:"discount_so_far"`
	Quantity      uint32   `json:"quantity"`
	UserQuantity  uint32   `json:"user_quantity"`
	Available     int64    `json:"available"`
	Stock         int64    `json:"stock"`
	StartsAt      int64    `json:"starts_at"`
	EndsAt        int64    `json:"ends_at"`
	GroupSize     uint32   `json:"group_size"`
	GroupMembers  uint32   `json:"group_members"`
	Currency      string   `json:"currency"`
	DealID        string   `json:"deal_id"`
	UserID        string   `json:"user_id"`
	Codes         []string `json:"codes"`
}

type jsonAnswer struct {
	Outcome  uint32 `json:"outcome"`
	Discount int64  `json:"discount"`
	Label    string `json:"label"`
	Reason   string `json:"reason"`
}

func encodeJSON(in *abi.Input) ([]byte, error) {
	order := jsonOrder{
		Flags: in.Flags, Now: in.Now, UnitPrice: in.UnitPrice, Subtotal: in.Subtotal, DiscountSoFar: in.DiscountSoFar,
		Quantity: in.Quantity, UserQuantity: in.UserQuantity, Available: in.Available, Stock: in.Stock,
		StartsAt: in.StartsAt, EndsAt: in.EndsAt, GroupSize: in.GroupSize, GroupMembers: in.GroupMembers,
		Currency: string(in.Currency[:]), DealID: string(in.DealID), UserID: string(in.UserID), Codes: []string{},
	}
	for _, code := range in.Codes {
		order.Codes = append(order.Codes, string(code))
	}
	return json.Marshal(&order)
}

func decodeJSON(b []byte, out *abi.Verdict) error {
	var answer jsonAnswer
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	return setAnswer(out, &exchange.Answer{Outcome: answer.Outcome, Discount: answer.Discount, Label: answer.Label, Reason: answer.Reason})
}

// program runs a whole program for each order, with the order as its input.
type program struct{ *guest }

func openWASI(ctx context.Context, wasm string) (pricer, error) {
	g, err := load(ctx, wasm, func(ctx context.Context, r wazero.Runtime) error {
		_, err := wasi_snapshot_preview1.Instantiate(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return program{g}, nil
}

func (p program) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	order, err := encodeJSON(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var answer bytes.Buffer
	config := wazero.NewModuleConfig().WithName("").WithStdin(bytes.NewReader(order)).WithStdout(&answer)
	module, err := p.runtime.InstantiateModule(ctx, p.compiled, config) // runs it
	if err != nil {
		return err
	}
	if err := module.Close(ctx); err != nil {
		return err
	}
	return decodeJSON(answer.Bytes(), out)
}

// plugin is Extism's.
type plugin struct{ plugin *extism.Plugin }

func openExtism(ctx context.Context, wasm string) (pricer, error) {
	manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmFile{Path: wasm}}, Timeout: uint64(patience.Milliseconds())}
	p, err := extism.NewPlugin(ctx, manifest, extism.PluginConfig{}, nil)
	if err != nil {
		return nil, err
	}
	return plugin{p}, nil
}

func (p plugin) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	order, err := encodeJSON(in)
	if err != nil {
		return err
	}
	code, answer, err := p.plugin.CallWithContext(ctx, "price", order)
	if err == nil && code != 0 {
		err = fmt.Errorf("it returned %d", code)
	}
	if err != nil {
		return err
	}
	return decodeJSON(answer, out)
}

func (p plugin) close() error { return p.plugin.Close(context.Background()) }

// goPlugin is go-plugin's.
type goPlugin struct {
	exchange.Pricer
	stop func(context.Context) error
}

func openGoPlugin(ctx context.Context, wasm string) (pricer, error) {
	plugins, err := exchange.NewPricerPlugin(ctx)
	if err != nil {
		return nil, err
	}
	p, err := plugins.Load(ctx, wasm)
	if err != nil {
		return nil, err
	}
	return goPlugin{p, p.Close}, nil
}

func (p goPlugin) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	answer, err := p.Price(ctx, message(in))
	if err != nil {
		return err
	}
	return setAnswer(out, answer)
}

func (p goPlugin) close() error { return p.stop(context.Background()) }
