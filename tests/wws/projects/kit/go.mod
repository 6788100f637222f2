module workers-in-go

go 1.21

require github.com/vmware-labs/wasm-workers-server/kits/go/worker v1.4.0
