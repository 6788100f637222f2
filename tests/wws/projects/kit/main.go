// As languages/go.md has it: the source lies beside the module that TinyGo made of it,
// and is no worker itself.
package main

import (
	"net/http"

	"github.com/vmware-labs/wasm-workers-server/kits/go/worker"
)

func main() {
	worker.ServeFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-generated-by", "a worker")
		w.Write([]byte("Hello wasm!"))
	})
}
