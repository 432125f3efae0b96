// Package shopify runs Shopify discount functions as rules, unchanged: the .wasm
// that a merchant has, of one of these kinds, told apart by what it imports.
//
//   - WASI: the function reads its input as JSON from its standard input and writes
//     its output to its standard output.
//   - The Shopify Function API, versions 1 and 2, as a compiler leaves the module or
//     as Shopify's build tool does, which links it to the memory of a provider. The
//     provider is not needed: this package is one, in Go.
//   - Javy: JavaScript, linked to a provider that holds the JavaScript engine and
//     that the merchant uploads beside the function.
//
// What belongs to a function (its provider, the merchant's configuration, its input
// query, its export) travels in custom sections of the module, so that a function
// is one file with one digest: see Bundle.
//
// An Engine compiles functions into Programs, as package host does with rules, and
// the promises are the same: every evaluation starts from the same state, is bounded
// by fuel and memory, sees no clock but the order's stamp, and gives the same answer
// for ever. Shopify's limits stand in place of the rule ABI's. docs/shopify.md says
// how an order becomes a cart, and an answer a discount.
package shopify

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/plugins/gas"
)

// Shopify's limits.
const (
	// ModuleBytesMax bounds a function without its bundle: 256 kB.
	ModuleBytesMax = 256 << 10
	// InstructionsMax bounds an evaluation's fuel.
	InstructionsMax = 11_000_000
	// MemoryPagesMax bounds a function's memory: 10,000 kB, in pages of 64 KiB.
	MemoryPagesMax = 10_000 << 10 >> 16
	// InputBytesMax bounds what a function is told, as it is encoded for it.
	InputBytesMax = 128_000
	// OutputBytesMax bounds what it answers.
	OutputBytesMax = 20_000
	// LogBytesMax bounds what it logs: of more the end is kept.
	LogBytesMax = 1_000
)

// Bounds of a bundle's other parts.
const (
	ProviderBytesMax      = 3 << 20
	ConfigurationBytesMax = 32 << 10
	exportBytesMax        = 128
)

// Bundle is what a merchant uploads beside a function. All of it is optional, but
// for the provider of a function that imports one.
type Bundle struct {
	Provider      []byte   // the module that a Javy function imports
	Configuration []byte   // JSON: the metafield of the discount
	Query         string   // the input query that the function was built with
	Export        string   // the function to call, see Export
	Classes       []string // discount classes of the discount, none: PRODUCT and ORDER

	stored bool // without a revision
}

// Custom sections of a bundled module.
const (
	sectionPrefix        = "doorbuster:"
	sectionProvider      = sectionPrefix + "provider"
	sectionConfiguration = sectionPrefix + "configuration"
	sectionQuery         = sectionPrefix + "query"
	sectionExport        = sectionPrefix + "export"
	sectionClasses       = sectionPrefix + "classes"
	sectionRevision      = sectionPrefix + "revision"
)

// revision is written into every module that comes with an input query. One without it
// was stored before the query's fields had all their names and bounds right, and is told
// about an order what it always was, so that it prices recorded orders as it did.
const revision = "1"

// Wrap returns the function with its bundle. A part that is in the module already
// is replaced.
func (b *Bundle) Wrap(function []byte) []byte {
	wrapped, written := slices.Clip(slices.Clone(function)), ""
	if b.Query != "" {
		written = revision
	}
	for _, part := range []struct {
		name    string
		content []byte
	}{
		{sectionProvider, b.Provider},
		{sectionConfiguration, b.Configuration},
		{sectionQuery, []byte(b.Query)},
		{sectionRevision, []byte(written)},
		{sectionExport, []byte(b.Export)},
		{sectionClasses, []byte(strings.Join(b.Classes, ","))},
	} {
		if len(part.content) > 0 {
			wrapped = gas.AppendCustom(wrapped, part.name, part.content)
		}
	}
	return wrapped
}

// unwrap reads the bundle of a module, and how many bytes the function itself has.
func unwrap(wasm []byte, o *gas.Outline) (b Bundle, function int) {
	function = len(wasm)
	part := func(name string) []byte {
		content, ok := o.Custom[name]
		if ok {
			function -= len(content)
		}
		return content
	}
	b.Provider, b.Configuration = part(sectionProvider), part(sectionConfiguration)
	b.Query, b.Export = string(part(sectionQuery)), string(part(sectionExport))
	b.stored = part(sectionRevision) == nil
	if classes := part(sectionClasses); classes != nil {
		b.Classes = strings.SplitN(string(classes), ",", len(knownClasses)+1)
	}
	return b, function
}

// Detect says whether a module means to be a Shopify function: it exports nothing of
// the rule ABI, and it has a bundle, imports from one of Shopify's or Javy's providers,
// or uses its standard input or output. A function that has faults is still one.
func Detect(wasm []byte) bool {
	o := gas.Read(wasm)
	if slices.ContainsFunc(o.Exports, func(e gas.Export) bool { return strings.HasPrefix(e.Name, "rule_") }) {
		return false
	}
	for name := range o.Custom {
		if strings.HasPrefix(name, sectionPrefix) {
			return true
		}
	}
	return slices.ContainsFunc(o.Imports, func(i gas.Import) bool {
		return isAPI(i.Module) || isProvider(i) || i.Module == wasiModule && (i.Name == "fd_read" || i.Name == "fd_write")
	})
}

const wasiModule = "wasi_snapshot_preview1"

// isAPI knows the provider of the Shopify Function API.
func isAPI(module string) bool { return module == apiV1 || module == apiV2 }

// isProvider says that an import names a provider to be uploaded: a module whose memory
// the function uses. Shopify's are called javy_quickjs_provider_v1 and so on, those of
// others as they please.
func isProvider(i gas.Import) bool { return i.Kind == importedMemory && !isAPI(i.Module) }

const importedMemory = 2

// javyPrefix is the name of Shopify's newer providers, before the version.
const javyPrefix = "shopify_functions_javy_v"

// settings is a checked bundle.
type settings struct {
	query         []*field
	configuration metafield
	classes       []string
	stored        bool // see revision
}

var knownClasses = []string{"PRODUCT", "ORDER", "SHIPPING"}

func (b *Bundle) settings() (*settings, error) {
	s := &settings{classes: b.Classes, stored: b.stored}
	if len(s.classes) == 0 {
		s.classes = []string{"PRODUCT", "ORDER"}
	}
	if len(s.classes) > len(knownClasses) {
		return nil, fmt.Errorf("more discount classes than there are: %s", strings.Join(knownClasses, ", "))
	}
	for _, class := range s.classes {
		if !slices.Contains(knownClasses, class) {
			return nil, fmt.Errorf("the discount class %.*q is none of %s", exportBytesMax, class, strings.Join(knownClasses, ", "))
		}
	}
	if len(b.Configuration) > ConfigurationBytesMax {
		return nil, fmt.Errorf("the configuration has %d bytes, at most %d", len(b.Configuration), ConfigurationBytesMax)
	}
	if len(b.Configuration) > 0 {
		if !json.Valid(b.Configuration) {
			return nil, errors.New("the configuration is not JSON")
		}
		s.configuration = metafield{slices.Clone(b.Configuration), &document{}}
		if err := s.configuration.json.readJSON(s.configuration.value); err != nil {
			return nil, fmt.Errorf("the configuration: %w", err)
		}
	}
	query := b.Query
	if query == "" {
		query = defaultQuery
	}
	var err error
	s.query, err = compileQuery(query, b.Configuration, b.stored)
	return s, err
}

// usualExports are the functions that Shopify's templates export for a discount, in
// the order in which one is taken when the merchant named none.
var usualExports = []string{
	"cart_lines_discounts_generate_run", "cart-lines-discounts-generate-run", "cartLinesDiscountsGenerateRun",
	"run", "_start",
}

// export finds the function to call: the one that the merchant named, or the first
// of the usual ones, or the only one that takes nothing and returns nothing.
func (b *Bundle) export(o *gas.Outline) (string, error) {
	var names []string
	for _, e := range o.Exports {
		if e.Signature == (gas.Signature{}) && e.Name != "_initialize" && !strings.HasPrefix(e.Name, "__") {
			names = append(names, e.Name)
		}
	}
	if b.Export != "" {
		if len(b.Export) <= exportBytesMax && slices.Contains(names, b.Export) {
			return b.Export, nil
		}
		return "", fmt.Errorf("no export %.*q that takes and returns nothing", exportBytesMax, b.Export)
	}
	for _, usual := range usualExports {
		if slices.Contains(names, usual) {
			return usual, nil
		}
	}
	if len(names) != 1 {
		return "", fmt.Errorf("%d exports could be the function: name one of them", len(names))
	}
	return names[0], nil
}
