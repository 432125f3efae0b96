package rule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// functionParts are what a module may come with: the parts of the upload's
// form. Those that are files are named by their paths.
var functionParts = []struct {
	flag, part, usage string
	file              bool
}{
	{"provider", "provider", "of a Shopify function: file with the module that it imports (Javy)", true},
	{"configuration", "configuration", "file with the merchant's configuration: of a Shopify function JSON, of a rule what rule_init is told", true},
	{"input-query", "input_query", "of a Shopify function: file with its input query, GraphQL", true},
	{"export", "export", "of a Shopify function: the function to call, unless it has one of the usual names", false},
	{"discount-classes", "discount_classes", "of a Shopify function: PRODUCT, ORDER, SHIPPING, separated by commas", false},
}

func newPush(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push [module.wasm]",
		Short: "Upload the project's module, or another, as a version of the rule",
		Long: `Upload the project's module, or another, as a version of the rule.

The project's module is checked first, as check does it: one that the server would
refuse, or that does not answer what vectors.json states, is not uploaded, unless
--unchecked says so. An upload to a rule that is not pinned prices orders at once.`,
		Args: cobra.MaximumNArgs(1),
	}
	r := addRemote(cmd)
	flags := cmd.Flags()
	fuel := flags.Uint64("fuel-limit", 0, "the most that one evaluation may use (default: the project's, or the server's)")
	unchecked := flags.Bool("unchecked", false, "upload the project's module whatever its vectors say")
	values := map[string]*string{}
	for _, p := range functionParts {
		values[p.flag] = flags.String(p.flag, "", p.usage)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		configuration := values["configuration"]
		wasm, limit, err := o.moduleToPush(cmd, args, *configuration, *fuel, !*unchecked)
		if err != nil {
			return err
		}
		ask := request{method: http.MethodPost, path: r.rulePath("/versions"), query: url.Values{}, contentType: "application/wasm", body: wasm}
		if limit != 0 {
			ask.query.Set("fuel_limit", strconv.FormatUint(limit, 10))
		}
		if len(args) == 0 {
			*configuration = "" // the project's module has it
		}
		if err := ask.addParts(wasm, values); err != nil {
			return err
		}
		return o.push(cmd, r, ask)
	}
	return cmd
}

// moduleToPush returns the module that the arguments name, or the project's, and the
// limit on its fuel: the one that is asked for, or the project's. What does not pass the
// project's check is shown. The project's module has its configuration in it: the one that
// is named, or the project's.
func (o *options) moduleToPush(cmd *cobra.Command, args []string, configuration string, fuel uint64, check bool) (wasm []byte, limit uint64, err error) {
	if len(args) > 0 {
		wasm, err = readFile(args[0], abi.ModuleBytesMax)
		return wasm, fuel, err
	}
	p, err := o.load()
	if err != nil {
		return nil, 0, err
	}
	p.configuration = configuration
	if fuel != 0 {
		p.FuelLimit = fuel
	}
	p.warnStale(cmd.ErrOrStderr())
	if wasm, err = p.wasm(); err != nil || !check {
		return wasm, p.FuelLimit, err
	}
	result, err := p.check(cmd.Context())
	if err == nil && !result.OK {
		if err = o.print(cmd, result, result.text); err == nil {
			err = result.failure("was not uploaded (--unchecked uploads it all the same)")
		}
	}
	return wasm, p.FuelLimit, err
}

// addParts makes the request a form, if any part was given.
func (ask *request) addParts(wasm []byte, values map[string]*string) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	given := false
	add := func(part string, content []byte) error {
		w, err := form.CreateFormField(part)
		if err == nil {
			_, err = w.Write(content)
		}
		return err
	}
	for _, p := range functionParts {
		value := *values[p.flag]
		if value == "" {
			continue
		}
		given = true
		content := []byte(value)
		if p.file {
			var err error
			if content, err = readFile(value, abi.ModuleBytesMax); err != nil {
				return err
			}
		}
		if err := add(p.part, content); err != nil {
			return err
		}
	}
	if !given {
		return nil
	}
	if err := errors.Join(add("module", wasm), form.Close()); err != nil {
		return err
	}
	ask.contentType, ask.body = form.FormDataContentType(), body.Bytes()
	return nil
}

func (o *options) push(cmd *cobra.Command, r *remote, ask request) error {
	var v version
	raw, err := r.call(cmd.Context(), ask, &v)
	if err != nil {
		return err
	}
	return o.print(cmd, raw, func(out io.Writer) {
		fmt.Fprintf(out, "%s version %d, %d bytes, sha256 %s\n", v.RuleID, v.Version, v.Size, v.SHA256)
		for _, warning := range v.Warnings {
			fmt.Fprintf(out, "warning: %s\n", warning)
		}
	})
}
