package gateway

import (
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
)

// publicRoutes is the contract's table of paths, but for the operators'.
func publicRoutes() []route {
	return append([]route{
		{method: "POST", pattern: "/api/v1/order", handle: (*Server).placeOrderRouted}, // checks its callers itself
		{method: "POST", pattern: "/api/v1/orders", handle: (*Server).placeOrderRouted},
		{method: "GET", pattern: "/api/v1/orders", allow: anyone, handle: (*Server).listOrders},
		{method: "GET", pattern: "/api/v1/orders/{id}", allow: anyone, handle: (*Server).getOrder},
		{method: "POST", pattern: "/api/v1/orders/{id}/confirm", allow: merchant | operator, handle: confirmOrder.handle},
		{method: "POST", pattern: "/api/v1/orders/{id}/cancel", allow: anyone, handle: cancelOrder.handle},
		{method: "POST", pattern: "/api/v1/orders/{id}/refund", allow: merchant | operator, handle: refundOrder.handle},
		{method: "GET", pattern: "/api/v1/orders/{id}/explain", allow: anyone, handle: (*Server).explainOrder},
		{method: "POST", pattern: "/api/v1/quotes", allow: shopper | operator, handle: (*Server).quote},
		{method: "GET", pattern: "/api/v1/groups/{id}", allow: anyone, handle: (*Server).getGroup},

		{method: "POST", pattern: "/api/v1/deals", allow: merchant | operator, handle: (*Server).createDeal},
		{method: "GET", pattern: "/api/v1/deals", allow: anyone, handle: (*Server).listDeals},
		{method: "GET", pattern: "/api/v1/deals/{id}", allow: anyone, handle: (*Server).getDeal},
		{method: "PATCH", pattern: "/api/v1/deals/{id}", allow: merchant | operator, handle: (*Server).patchDeal},
		{method: "POST", pattern: "/api/v1/deals/{id}/pause", allow: merchant | operator, handle: steerDeal(deal.Pause)},
		{method: "POST", pattern: "/api/v1/deals/{id}/resume", allow: merchant | operator, handle: steerDeal(deal.Resume)},
		{method: "POST", pattern: "/api/v1/deals/{id}/close", allow: merchant | operator, handle: steerDeal(deal.Close)},
		{method: "GET", pattern: "/api/v1/deals/{id}/events", allow: anyone, handle: (*Server).dealEvents},

		{method: "GET", pattern: "/api/v1/rules", allow: merchant | operator, handle: (*Server).listRules},
		{method: "GET", pattern: "/api/v1/rules/{id}", allow: merchant | operator, handle: (*Server).getRule},
		{method: "GET", pattern: "/api/v1/rules/{id}/logs", allow: merchant | operator, handle: (*Server).ruleLogs},
		{method: "POST", pattern: "/api/v1/rules/{id}/versions", allow: merchant | operator, handle: (*Server).uploadRule},
		{method: "GET", pattern: "/api/v1/rules/{id}/versions/{n}", allow: merchant | operator, handle: (*Server).getVersion},
		{method: "GET", pattern: "/api/v1/rules/{id}/versions/{n}/wasm", allow: merchant | operator, handle: (*Server).getWasm},
		{method: "POST", pattern: "/api/v1/rules/{id}/versions/{n}/evaluate", allow: merchant | operator, handle: (*Server).evaluateRule},
		{method: "POST", pattern: "/api/v1/rules/{id}/versions/{n}/backtest", allow: merchant | operator, handle: (*Server).backtestRule},
		{method: "GET", pattern: "/api/v1/rules/{id}/events", allow: merchant | operator, handle: (*Server).listRuleEvents},
		{method: "GET", pattern: "/api/v1/rules/{id}/rollout", allow: merchant | operator, handle: (*Server).getRollout},
		{method: "PUT", pattern: "/api/v1/rules/{id}/rollout", allow: merchant | operator, handle: (*Server).setRollout},
		{method: "POST", pattern: "/api/v1/rules/{id}/promote", allow: merchant | operator, handle: steerRule((*plugins.Registry).Promote)},
		{method: "POST", pattern: "/api/v1/rules/{id}/rollback", allow: merchant | operator, handle: steerRule((*plugins.Registry).Rollback)},
		{method: "POST", pattern: "/api/v1/rules/{id}/rollout/promote", allow: merchant | operator, handle: steerRule((*plugins.Registry).Promote)},
		{method: "POST", pattern: "/api/v1/rules/{id}/rollout/rollback", allow: merchant | operator, handle: steerRule((*plugins.Registry).Rollback)},
	}, append(webhookRoutes(), healthRoutes()...)...)
}

// webhookRoutes answer on both listeners: merchants reach the public one, and the
// contract names them among the operators'.
func webhookRoutes() []route {
	return []route{
		{method: "GET", pattern: "/api/v1/webhooks/{id}", allow: merchant | operator, handle: (*Server).getWebhook},
		{method: "PUT", pattern: "/api/v1/webhooks/{id}", allow: merchant | operator, handle: (*Server).putWebhook},
		{method: "DELETE", pattern: "/api/v1/webhooks/{id}", allow: merchant | operator, handle: (*Server).deleteWebhook},
	}
}

// healthRoutes answer on both listeners, to anybody, as does the contract itself.
func healthRoutes() []route {
	return []route{
		{method: "GET", pattern: "/openapi.yaml", handle: (*Server).openAPI},
		{method: "GET", pattern: "/livez", handle: (*Server).livez},
		{method: "GET", pattern: "/readyz", handle: (*Server).readyz},
	}
}

// adminRoutes is the operators' table of paths.
func (s *Server) adminRoutes() []route {
	routes := append([]route{
		{method: "GET", pattern: metricsPath, handle: (*Server).metrics},
		{method: "GET", pattern: "/debug/pprof/", allow: operator, handle: (*Server).pprof},
		{method: "GET", pattern: "/debug/pprof/{profile}", allow: operator, handle: (*Server).pprof},
		{method: "GET", pattern: "/api/v1/admin/cluster", allow: operator, handle: (*Server).cluster},
		{method: "GET", pattern: "/api/v1/admin/journal", allow: operator, handle: (*Server).journal},
		{method: "GET", pattern: "/api/v1/admin/rules", allow: operator, handle: (*Server).faultingRules},
		{method: "POST", pattern: "/api/v1/admin/snapshot", allow: operator, handle: (*Server).snapshot},
		{method: "POST", pattern: "/api/v1/admin/drain", allow: operator, handle: (*Server).drain},
	}, append(webhookRoutes(), healthRoutes()...)...)
	keys := []route{
		{method: "POST", pattern: "/api/v1/admin/keys", allow: operator, handle: (*Server).createKey},
		{method: "GET", pattern: "/api/v1/admin/keys", allow: operator, handle: (*Server).listKeys},
		{method: "DELETE", pattern: "/api/v1/admin/keys/{id}", allow: operator, handle: (*Server).revokeKey},
	}
	if s.cfg.Auth == nil {
		for i := range keys {
			keys[i].handle = (*Server).noKeys
		}
	}
	return append(routes, keys...)
}
