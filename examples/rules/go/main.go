// Command go is the twelve rules of plugins/sdk/rules in Go, one in a file. A
// merchant's project holds one of them; these share a program, so that they
// compile once. The linker says which of them a module is:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags "-s -w -X main.rule=tiered" -o tiered.wasm ./examples/rules/go
package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// rule is set by the linker.
var rule = "tiered"

var ruleByName = map[string]doorbuster.Rule{
	"tiered":      tiered,
	"buyxgety":    buyXGetY,
	"firstorder":  firstOrder,
	"code":        code,
	"membertag":   memberTag,
	"groupleader": groupLeader,
	"flashhour":   flashHour,
	"quantitycap": quantityCap,
	"bundle":      bundle,
	"stockprice":  stockPrice,
	"combinedcap": combinedCap,
	"region":      region,
}

func init() { doorbuster.Register(ruleByName[rule]) }

func main() {}
