// Package suite names the module whose tests are built: tests alone can't be imported.
package suite

import _ "github.com/containerd/containerd/v2/integration/images"
