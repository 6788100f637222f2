module wharf/tests/cri-suite

go 1.24.2

require github.com/containerd/containerd/v2 v2.1.9

require (
	github.com/containerd/log v0.1.0 // indirect
	github.com/pelletier/go-toml/v2 v2.2.4 // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	golang.org/x/sys v0.38.0 // indirect
)
