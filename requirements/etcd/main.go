// Command etcd is the server alone: its own main package can't be installed by its name, because
// that module has replace directives.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
