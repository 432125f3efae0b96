// Package lint checks the manifests beside it: that they are what Docker, Compose and
// Kubernetes take, that they fit together, and that every flag, variable, setting,
// port and probe in them is one that the server has.
//
// It is a module of its own: Helm and Kustomize must not choose the versions that the
// server is built with.
package lint
