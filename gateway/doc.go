// Package gateway is the HTTP edge: it turns requests into commands for the
// deals, and decisions into replies. It decides nothing about an order itself.
//
// It owns the routes, the one table of errors, who may call what, and what a
// request may look like. Bad input ends here: it never reaches an actor, never
// logs a stack and never panics. Nothing of a request is kept after its
// handler has returned: fasthttp reuses the memory.
//
// Where to start reading:
//
//	order_path.go    the hot path: one order from the socket to the reply
//	order_decode.go  the order's body in, order_encode.go the order out
//	server.go        the listeners, their limits, the life of any request
//	framing.go       requests that two parsers could read differently
//	router.go        paths, routes.go the table of them
//	problem.go       the table of errors
//	auth.go          who calls; keys.go and jwt.go how that is known
//	events.go        a deal's events as a stream
//
// The contract is openapi.yaml, served at /openapi.yaml.
package gateway
