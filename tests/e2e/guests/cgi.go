// A worker by Go's own net/http/cgi.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.URL.Query().Get("exit") != "" {
			os.Exit(3)
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Made-By", "go")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s from %s: %s\n", r.Method, r.URL.Path, r.RemoteAddr, body)
	})
	if err := cgi.Serve(handler); err != nil {
		log.Fatal(err)
	}
}
