// Reads a cluster's configuration from standard input as `kind create cluster --config -` does, by the same functions in
// the same order, and writes what kind would go by as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config"
	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cluster, err := encoding.Parse(raw)
	if err != nil {
		return err
	}
	config.SetDefaultsCluster(cluster)
	if err := cluster.Validate(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(cluster)
}
