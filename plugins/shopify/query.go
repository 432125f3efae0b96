package shopify

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// Bounds of an input query.
const (
	queryBytesMax   = 16 << 10
	queryTokensMax  = 2_000
	queryNestingMax = 24
	querySelections = 1_000 // fields and fragments, each as often as it is spread
	queryListMax    = 100   // elements of a list, as with Shopify
)

//go:embed default.graphql
var defaultQuery string

// field is one selected field of an input query, ready to be written.
type field struct {
	key   string
	name  string
	write func(*inputWriter, *field)
	sub   []*field

	// The arguments that fields have: key of an attribute or a metafield with its
	// namespace, tags or ids, and one or two points in time.
	argument, namespace string
	list                []string
	from, to            string
}

// compileQuery checks an input query against what is offered and returns its
// fields. Its variables take their values from the merchant's configuration, as
// Shopify takes them from a metafield. stored is that of settings.
func compileQuery(query string, configuration []byte, stored bool) ([]*field, error) {
	if len(query) > queryBytesMax {
		return nil, fmt.Errorf("the input query has %d bytes, at most %d", len(query), queryBytesMax)
	}
	parsed, err := parser.ParseQueryWithTokenLimit(&ast.Source{Name: "input query", Input: query}, queryTokensMax)
	if err != nil {
		return nil, fmt.Errorf("the input query: %w", err)
	}
	if len(parsed.Operations) != 1 || parsed.Operations[0].Operation != ast.Query {
		return nil, errors.New("the input query is not one query")
	}
	c := queryCompiler{fragments: parsed.Fragments, variables: map[string]any{}, stored: stored}
	if len(configuration) > 0 && parsed.Operations[0].VariableDefinitions != nil {
		_ = json.Unmarshal(configuration, &c.variables) // of another kind than an object: no values
	}
	for _, v := range parsed.Operations[0].VariableDefinitions {
		if _, ok := c.variables[v.Variable]; !ok && v.DefaultValue != nil {
			c.variables[v.Variable], _ = v.DefaultValue.Value(nil)
		}
	}
	var fields []*field
	err = c.selections(&fields, parsed.Operations[0].SelectionSet, "Input", 0)
	return fields, err
}

type queryCompiler struct {
	fragments ast.FragmentDefinitionList
	variables map[string]any
	selected  int
	stored    bool
}

// selections adds the fields of a selection set of a type.
func (c *queryCompiler) selections(to *[]*field, set ast.SelectionSet, typeName string, depth int) error {
	if depth > queryNestingMax {
		return fmt.Errorf("the input query nests deeper than %d", queryNestingMax)
	}
	if types[typeName] == nil {
		return nil // never written
	}
	for _, s := range set {
		if c.selected++; c.selected > querySelections {
			return fmt.Errorf("the input query selects more than %d fields and fragments", querySelections)
		}
		var err error
		switch s := s.(type) {
		case *ast.Field:
			err = c.field(to, s, typeName, depth)
		case *ast.InlineFragment:
			if s.TypeCondition == "" || c.isA(typeName, s.TypeCondition) {
				err = c.selections(to, s.SelectionSet, typeName, depth+1)
			}
		case *ast.FragmentSpread:
			fragment := c.fragments.ForName(s.Name)
			if fragment == nil {
				return fmt.Errorf("the input query has no fragment %q", s.Name)
			}
			if c.isA(typeName, fragment.TypeCondition) {
				err = c.selections(to, fragment.SelectionSet, typeName, depth+1)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isA says whether a type is another, or one of its interfaces or unions.
func (c *queryCompiler) isA(typeName, other string) bool {
	switch other {
	case typeName:
		return true
	case "HasMetafields":
		_, ok := types[typeName]["metafield"]
		return ok && (!c.stored || typeName != "Cart")
	case "Merchandise":
		return typeName == "ProductVariant"
	}
	return false
}

func (c *queryCompiler) field(to *[]*field, s *ast.Field, typeName string, depth int) error {
	if len(s.Directives) > 0 {
		return fmt.Errorf("the input query: directives are not offered, on %s.%s", typeName, s.Name)
	}
	def, ok := types[typeName][s.Name]
	if s.Name == "__typename" {
		def = definition{write: func(w *inputWriter, _ *field) { w.d.string(typeName) }}
	} else if !ok {
		return fmt.Errorf("the input query: %s.%s is not offered", typeName, s.Name)
	}
	if def.of != enteredCode && def.of != "" != (len(s.SelectionSet) > 0) {
		return fmt.Errorf("the input query: %s.%s selects no fields of an object, or fields of none", typeName, s.Name)
	}
	of := def.of
	if c.stored && of == deliverableLine {
		of = "CartLine"
	}
	f := &field{key: s.Alias, name: s.Name, write: def.write}
	if i := slices.IndexFunc(*to, func(other *field) bool { return other.key == f.key }); i >= 0 {
		if f = (*to)[i]; f.name != s.Name {
			return fmt.Errorf("the input query: %q is two fields of %s", s.Alias, typeName)
		}
	} else {
		*to = append(*to, f)
	}
	if err := c.arguments(f, s.Arguments); err != nil {
		return err
	}
	return c.selections(&f.sub, s.SelectionSet, of, depth+1)
}

func (c *queryCompiler) arguments(f *field, list ast.ArgumentList) error {
	for _, a := range list {
		v, err := a.Value.Value(c.variables)
		if err != nil {
			return fmt.Errorf("the input query: argument %q: %w", a.Name, err)
		}
		text, _ := v.(string)
		switch a.Name {
		case "key":
			f.argument = text
		case "namespace":
			f.namespace = text
		case "tags", "ids", "keys":
			f.list = f.list[:0]
			many, _ := v.([]any)
			if len(many) > queryListMax {
				return fmt.Errorf("the input query: argument %q of %s has %d elements, at most %d", a.Name, f.name, len(many), queryListMax)
			}
			for _, one := range many {
				if s, ok := one.(string); ok {
					f.list = append(f.list, s)
				}
			}
		case "dateTime", "time", "startDateTime", "startTime":
			f.from = text
		case "endDateTime", "endTime":
			f.to = text
		default:
			return fmt.Errorf("the input query: argument %q of %s is not offered", a.Name, f.name)
		}
	}
	return nil
}
