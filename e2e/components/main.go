// Components is the part of a Kubernetes cluster that longtail's end-to-end tests and demo run on loopback:
// one binary whose first argument names the component.
//
// One binary instead of five links once instead of five times (each link holds most of client-go and takes seconds), and lets the
// running components share their text pages. KWOK and Prometheus are `tool` lines of go.mod and are built from their own main packages
// by the same `go build`, so the packages they share with Kubernetes are compiled once.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // the components' own client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// cobraCommand adapts a constructor of a Kubernetes command to a component that returns its exit code.
func cobraCommand(construct func() *cobra.Command) func() int {
	return func() int { return cli.Run(construct()) }
}

var components = map[string]func() int{
	"etcd": func() int {
		etcdmain.Main(os.Args)
		return 0
	},
	"kube-apiserver":          cobraCommand(apiserver.NewAPIServerCommand),
	"kube-controller-manager": cobraCommand(controllers.NewControllerManagerCommand),
	"kube-scheduler":          cobraCommand(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubectl": func() int {
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			// kubectl's own main does the same: it prints the API server's error without a usage text.
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	},
	"service-account-key": printServiceAccountKey,
}

// printServiceAccountKey writes a fresh private key, with which the API server signs the tokens of service accounts. It spares the
// harness, which has Python's standard library alone, a dependency on openssl.
func printServiceAccountKey() int {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		var der []byte
		if der, err = x509.MarshalECPrivateKey(key); err == nil {
			err = pem.Encode(os.Stdout, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func main() {
	names := strings.Join(slices.Sorted(maps.Keys(components)), " | ")
	if len(os.Args) < 2 {
		fmt.Fprintf(os.Stderr, "usage: %s (%s) [arguments of the component]\n", os.Args[0], names)
		os.Exit(2)
	}
	run, known := components[os.Args[1]]
	if !known {
		fmt.Fprintf(os.Stderr, "unknown component %q: want %s\n", os.Args[1], names)
		os.Exit(2)
	}
	// The component sees itself as the program: its own name, then its own arguments.
	os.Args = os.Args[1:]
	os.Exit(run())
}
