package gateway

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/doorbuster/doorbuster/runtime/obs"
)

// paramsMax is the most variable parts that a route has.
const paramsMax = 2

// route is one method of one path.
type route struct {
	method  string
	pattern string // segments; {name} stands for any one segment
	allow   role   // who may call it, 0 = anybody, known or not
	handle  func(*Server, *call) error
	seen    *obs.Route
}

// router finds routes by exact segments. There is nothing lenient in it: no
// trailing slashes, no cleaning, no unescaping; an identifier needs no escape.
type router struct{ root pathNode }

type pathNode struct {
	fixed  map[string]*pathNode
	param  *pathNode
	routes []*route
	allow  string // the value of Allow
}

func newRouter(routes []route, seen func(method, pattern string) *obs.Route) *router {
	t := &router{}
	for i := range routes {
		r := &routes[i]
		r.seen = seen(r.method, r.pattern)
		t.add(r)
	}
	return t
}

func (t *router) add(r *route) {
	n := &t.root
	for segment := range strings.SplitSeq(r.pattern[1:], "/") {
		n = n.child(segment)
	}
	for _, other := range n.routes {
		if other.method == r.method {
			panic(fmt.Sprintf("gateway: two routes %s %s", r.method, r.pattern))
		}
	}
	n.routes = append(n.routes, r)
	if n.allow != "" {
		n.allow += ", "
	}
	n.allow += r.method
	if r.method == "GET" {
		n.allow += ", HEAD"
	}
}

func (n *pathNode) child(segment string) *pathNode {
	if strings.HasPrefix(segment, "{") {
		if n.param == nil {
			n.param = &pathNode{}
		}
		return n.param
	}
	if n.fixed == nil {
		n.fixed = map[string]*pathNode{}
	}
	if n.fixed[segment] == nil {
		n.fixed[segment] = &pathNode{}
	}
	return n.fixed[segment]
}

// find returns the node of a path and its variable parts, or nil.
func (t *router) find(path []byte) (n *pathNode, params [paramsMax][]byte) {
	n, used := &t.root, 0
	for rest, more := path[1:], true; more; {
		var segment []byte
		segment, rest, more = bytes.Cut(rest, slash)
		next := n.fixed[string(segment)]
		if next == nil && n.param != nil && len(segment) > 0 {
			next = n.param
			params[used] = segment
			used++
		}
		if n = next; n == nil {
			return nil, params
		}
	}
	return n, params
}

var slash = []byte("/")

// method returns the node's route for a method, or nil. What answers GET
// answers HEAD.
func (n *pathNode) method(method []byte) *route {
	if string(method) == "HEAD" {
		method = s2b("GET")
	}
	for _, r := range n.routes {
		if r.method == string(method) {
			return r
		}
	}
	return nil
}
